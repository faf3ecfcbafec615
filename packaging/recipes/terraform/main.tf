# The key is kept in the cloud's parameter store, by an argument that Terraform (1.11) does not save, and fetched by the
# instance with the rights of its role; terraform apply -var-file=…, or TF_VAR_enrollment_key.
#
# Removed afterwards: by you, the parameter, once the fleet is enrolled; nothing on the instances.
# Leaks: in user_data itself the key would stay in Terraform's state and in the metadata service. So it is in the parameter
#   alone, for whoever may read that: end the role's right after the first boot.
terraform {
  required_version = ">= 1.11"
}

variable "enrollment_key" {
  type      = string
  ephemeral = true
  sensitive = true
}

variable "image" {
  type = string
}

variable "instance_profile" {
  type = string
}

resource "aws_ssm_parameter" "enrollment_key" {
  name             = "/fleet/enrollment-key"
  type             = "SecureString"
  value_wo         = var.enrollment_key
  value_wo_version = 1
}

resource "aws_instance" "edge" {
  ami                  = var.image
  instance_type        = "t3.micro"
  iam_instance_profile = var.instance_profile

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  user_data = <<-EOT
    #!/bin/sh
    aws ssm get-parameter --with-decryption --query Parameter.Value --output text \
      --name ${aws_ssm_parameter.enrollment_key.name} | agent join -
  EOT
}
