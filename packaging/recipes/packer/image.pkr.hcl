# An image with the package and no key: packer build image.pkr.hcl. Machines get their keys at the first boot, by
# cloud-init, a credential or a dropped file.
#
# Removed afterwards: there is no key to remove. The last step fails if the image has anything of an identity.
# Leaks: nothing, as long as no key is put into the machine that the image is made of.
variable "source_image" {
  type = string
}

variable "package" {
  type    = string
  default = "enroll-agent.deb"
}

source "qemu" "fleet" {
  iso_url      = var.source_image
  iso_checksum = "none"
  disk_image   = true
  ssh_username = "root"
}

build {
  sources = ["source.qemu.fleet"]

  provisioner "file" {
    source      = var.package
    destination = "/tmp/enroll-agent.deb"
  }

  provisioner "shell" {
    inline = [
      "apt-get install -y /tmp/enroll-agent.deb",
      "rm /tmp/enroll-agent.deb",
      "systemctl stop enroll-agent.service",
      "truncate -s 0 /etc/machine-id",
      "agent prepare-image --check",
    ]
  }
}
