//! What tells this machine from others.

use std::{collections::BTreeMap, fs, path::Path};

use uuid::Uuid;

use crate::model::{Machine, Trait};

/// Gathers it; what cannot be read, or is what many machines have, is left out.
///
/// `hardware_uuid` is what somebody with more rights read for this process: only root may.
pub fn machine(hardware_uuid: Option<&str>) -> Machine {
    gather(Path::new("/"), hardware_uuid)
}

fn gather(root: &Path, hardware_uuid: Option<&str>) -> Machine {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let serial =
        || read("sys/class/dmi/id/board_serial").or_else(|| read("sys/firmware/devicetree/base/serial-number"));
    // The copy in /var is on the disk, and of the instance that had it before until cloud-init has run.
    let instance = read("run/cloud-init/instance-data.json").and_then(|text| instance_id(&text));
    let found = [
        (Trait::BoardSerial, serial()),
        (Trait::HardwareUuid, read("sys/class/dmi/id/product_uuid").or_else(|| hardware_uuid.map(str::to_owned))),
        (Trait::InstanceId, instance),
        (Trait::MachineId, read("etc/machine-id").filter(|text| text.trim().len() >= 32)),
    ];
    let told = found.into_iter().filter_map(|(which, text)| {
        let value = telling(&text?)?;
        Some((which, if which == Trait::HardwareUuid { in_one_order(value) } else { value }))
    });
    Machine(told.collect::<BTreeMap<_, _>>())
}

/// The document that cloud-init leaves for others (its manual, "Instance metadata").
fn instance_id(text: &str) -> Option<String> {
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(document["v1"]["instance_id"].as_str()?.to_owned())
}

/// Firmware and kernels disagree about the order of a UUID's bytes (SMBIOS specification §7.2.1), and a new version of
/// one may turn it round: the smaller one of both is taken.
fn in_one_order(value: String) -> String {
    let Ok(uuid) = Uuid::parse_str(&value) else { return value };
    uuid.min(Uuid::from_bytes_le(*uuid.as_bytes())).to_string()
}

/// Returns a value without regard to case and white space, unless it tells nothing.
fn telling(text: &str) -> Option<String> {
    let value = text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_ascii_lowercase();
    let mut symbols: Vec<char> = value.chars().filter(char::is_ascii_alphanumeric).collect();
    symbols.sort_unstable();
    symbols.dedup();
    let is_one_symbol = symbols.len() < 2;
    (!is_one_symbol && !NOTHING.contains(&value.as_str())).then_some(value)
}

/// What vendors write where they know nothing, and values that are known from many machines.
const NOTHING: [&str; 27] = [
    "00020003-0004-0005-0006-000700080009",
    "01020304-0506-0708-090a-0b0c0d0e0f10",
    "03000200-0400-0500-0006-000700080009",
    "03020100-0504-0706-0809-0a0b0c0d0e0f",
    "0123456789",
    "0123456789abcdef",
    "1234567890",
    "12345678-1234-5678-90ab-cddeefaabbcc",
    "base board serial number",
    "default",
    "default string",
    "empty",
    "fefefefe-fefe-fefe-fefe-fefefefefefe",
    "iid-datasource-none",
    "iid-local01",
    "n/a",
    "nocloud",
    "none",
    "not applicable",
    "not available",
    "not specified",
    "o.e.m.",
    "serial number",
    "system serial number",
    "to be filled by o.e.m.",
    "uninitialized",
    "unknown",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_machine_says() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("etc/machine-id", "0f1e2d3c4b5a69788796a5b4c3d2e1f0\n"),
            ("run/cloud-init/instance-data.json", r#"{"v1": {"instance_id": "i-0abc"}, "ds": {}}"#),
            ("sys/class/dmi/id/product_uuid", "4C4C4544-0042-3510-8052-B4C04F4D3132\n"),
            ("sys/firmware/devicetree/base/serial-number", "10000000ab12cd34\0"),
        ];
        for (path, text) in files {
            fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
            fs::write(root.path().join(path), text).unwrap();
        }

        let Machine(found) = gather(root.path(), Some("7d444840-9dc0-11d1-b245-5ffdce74fad2"));

        let expected = [
            (Trait::BoardSerial, "10000000ab12cd34"),
            (Trait::HardwareUuid, "44454c4c-4200-1035-8052-b4c04f4d3132"),
            (Trait::InstanceId, "i-0abc"),
            (Trait::MachineId, "0f1e2d3c4b5a69788796a5b4c3d2e1f0"),
        ];
        assert_eq!(found, expected.map(|(which, value)| (which, value.to_owned())).into());
    }

    #[test]
    fn a_machine_that_says_nothing_has_only_what_it_was_told() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/machine-id"), "uninitialized\n").unwrap();

        assert_eq!(gather(root.path(), None), Machine::default());
        let Machine(told) = gather(root.path(), Some("7d444840-9dc0-11d1-b245-5ffdce74fad2\n"));
        assert_eq!(told.get(&Trait::HardwareUuid).map(String::as_str), Some("4048447d-c09d-d111-b245-5ffdce74fad2"));
    }

    #[test]
    fn the_order_of_a_uuids_bytes_does_not_matter() {
        let order = |text: &str| in_one_order(text.to_owned());

        assert_eq!(
            order("4c4c4544-0042-3510-8052-b4c04f4d3132"),
            order("44454c4c-4200-1035-8052-b4c04f4d3132"),
            "both ways round"
        );
        assert_eq!(order("no uuid"), "no uuid");
    }

    #[test]
    fn what_many_machines_have_tells_nothing() {
        let nothing = [
            "",
            " \n",
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "03000200-0400-0500-0006-000700080009",
            "To be filled by O.E.M.",
            "Default string",
            "None",
            "................",
        ];
        for text in nothing {
            assert_eq!(telling(text), None, "{text:?}");
        }
        assert_eq!(telling("/7VX2R93/CNFCW0093E001E/\n").as_deref(), Some("/7vx2r93/cnfcw0093e001e/"));
    }
}
