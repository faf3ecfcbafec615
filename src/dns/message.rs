//! From a question to what becomes of it: bytes in, bytes out.

use std::net::IpAddr;

use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, SimpleDnsError, TYPE,
    rdata::{A, AAAA, OPT, PTR, RData},
};

use crate::plan::{Answers, Found};

/// What becomes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This is the answer.
    Answer(Vec<u8>),
    /// These know, in this order; if none answers, the last is said.
    Ask(Vec<IpAddr>, Vec<u8>),
    /// It is no question, and an answer could begin a quarrel.
    Ignore,
}

/// Judges `question`, whose answer may have `room` bytes if it does not say itself how many.
pub(super) fn judge(question: &[u8], answers: &Answers, room: usize) -> Verdict {
    let Some(id) = question.first_chunk().map(|id| u16::from_be_bytes(*id)) else { return Verdict::Ignore };
    let any_type;
    let (parsed, is_odd) = match Packet::parse(question) {
        // A type that nobody here knows may still be known where names are forwarded to.
        Err(SimpleDnsError::InvalidQType(_)) => {
            any_type = with_type(question, ANY);
            (any_type.as_ref().and_then(|query| Packet::parse(query).ok()), true)
        }
        other => (other.ok(), false),
    };
    let Some(query) = parsed else {
        let is_question = question.len() >= HEADER && question[2] & 0x80 == 0;
        return if is_question { plain(id, RCODE::FormatError) } else { Verdict::Ignore };
    };
    if query.has_flags(PacketFlag::RESPONSE) {
        return Verdict::Ignore;
    }
    if query.opcode() != OPCODE::StandardQuery {
        return plain(id, RCODE::NotImplemented);
    }
    let [asked] = query.questions.as_slice() else { return plain(id, RCODE::FormatError) };
    let name = asked.qname.to_string().to_ascii_lowercase();
    let found = match asked.qclass {
        QCLASS::CLASS(CLASS::IN) | QCLASS::ANY => answers.find(&name),
        QCLASS::CLASS(_) => Found::Stranger,
    };
    let kind = if is_odd { QTYPE::TYPE(TYPE::NULL) } else { asked.qtype };
    let room = query.opt().map_or(room, |opt| room.max(opt.udp_packet_size.min(LARGEST_PORTION).into()));
    let written = |code, records| finish(&query, question, (code, records), room, is_odd);
    let answer = match found {
        Found::Ask(servers) => {
            return written(RCODE::ServerFailure, Vec::new())
                .map_or(Verdict::Ignore, |failure| Verdict::Ask(servers.to_vec(), failure));
        }
        Found::Host(addresses) => {
            let records = addresses.iter().filter_map(|address| record(*address, kind));
            written(RCODE::NoError, records.map(|data| resource(asked.qname.clone(), data)).collect())
        }
        Found::Pointers(names) if matches!(kind, QTYPE::TYPE(TYPE::PTR) | QTYPE::ANY) => {
            let names = names.iter().filter_map(|name| Name::new(name.as_str()).ok());
            written(RCODE::NoError, names.map(|name| resource(asked.qname.clone(), RData::PTR(PTR(name)))).collect())
        }
        Found::Pointers(_) | Found::Trunk => written(RCODE::NoError, Vec::new()),
        Found::Nothing => written(RCODE::NameError, Vec::new()),
        Found::Stranger => written(RCODE::Refused, Vec::new()),
    };
    answer.map_or(Verdict::Ignore, Verdict::Answer)
}

/// Whether `reply` is an answer to `question`, and what it says.
pub(super) fn reply_code(question: &[u8], reply: &[u8]) -> Option<RCODE> {
    let is_answer = reply.len() >= HEADER && reply[..2] == question[..2] && reply[2] & 0x80 != 0;
    is_answer.then(|| RCODE::from(u16::from(reply[3] & 0x0f)))
}

fn record(address: IpAddr, kind: QTYPE) -> Option<RData<'static>> {
    match (address, kind) {
        (IpAddr::V4(ip), QTYPE::TYPE(TYPE::A) | QTYPE::ANY) => Some(RData::A(A::from(ip))),
        (IpAddr::V6(ip), QTYPE::TYPE(TYPE::AAAA) | QTYPE::ANY) => Some(RData::AAAA(AAAA::from(ip))),
        (IpAddr::V4(_) | IpAddr::V6(_), _) => None,
    }
}

fn resource<'a>(name: Name<'a>, data: RData<'a>) -> ResourceRecord<'a> {
    ResourceRecord::new(name, CLASS::IN, LIFETIME, data)
}

/// Writes an answer; one that does not fit says so instead, and is asked for again over TCP.
fn finish<'a>(
    query: &Packet<'a>,
    question: &[u8],
    (code, records): (RCODE, Vec<ResourceRecord<'a>>),
    room: usize,
    is_odd: bool,
) -> Option<Vec<u8>> {
    let mut reply = Packet::new_reply(query.id());
    reply.questions.clone_from(&query.questions);
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    if matches!(code, RCODE::NoError | RCODE::NameError) {
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    }
    if query.opt().is_some() {
        *reply.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: LARGEST_PORTION, version: 0 });
    }
    *reply.rcode_mut() = code;
    reply.answers = records;
    let mut bytes = reply.build_bytes_vec_compressed().ok()?;
    if bytes.len() > room {
        reply.answers.clear();
        reply.set_flags(PacketFlag::TRUNCATION);
        bytes = reply.build_bytes_vec_compressed().ok()?;
    }
    if is_odd {
        let at = end_of_name(question)?;
        bytes.get_mut(at..at + 2)?.copy_from_slice(question.get(at..at + 2)?);
    }
    Some(bytes)
}

/// An answer that repeats no question.
fn plain(id: u16, code: RCODE) -> Verdict {
    let mut reply = Packet::new_reply(id);
    *reply.rcode_mut() = code;
    reply.build_bytes_vec().map_or(Verdict::Ignore, Verdict::Answer)
}

/// The same question, for another type.
fn with_type(question: &[u8], kind: u16) -> Option<Vec<u8>> {
    let at = end_of_name(question)?;
    let mut query = question.to_vec();
    query.get_mut(at..at + 2)?.copy_from_slice(&kind.to_be_bytes());
    Some(query)
}

/// Where the name of the first question ends: nothing before it could be referred to (RFC 1035 §4.1.4).
fn end_of_name(question: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match question.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(*length),
            64.. => return None,
        }
    }
}

/// RFC 1035 §3.2.3.
const ANY: u16 = 255;

/// Bytes before the first question (RFC 1035 §4.1.1).
const HEADER: usize = 12;

/// Bytes of an answer in one packet that no path breaks up.
const LARGEST_PORTION: u16 = 1232;

/// Seconds for which an answer may be kept: hosts come and go.
const LIFETIME: u32 = 30;

#[cfg(test)]
pub(super) mod tests {
    use simple_dns::Question;

    use super::*;
    use crate::model::HostNames;

    #[test]
    fn answers_what_is_known_in_either_case() {
        let reply = asked("PLC-1.plant-a.nm.internal", TYPE::A.into());

        let packet = Packet::parse(&reply).unwrap();
        assert_eq!(packet.rcode(), RCODE::NoError);
        assert!(packet.has_flags(PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_DESIRED));
        assert_eq!(packet.questions[0].qname.to_string(), "PLC-1.plant-a.nm.internal", "as it was asked");
        assert_eq!(data(&packet), ["10.101.0.2"]);
        assert_eq!(data(&Packet::parse(&asked("plc-1.plant-a.nm.internal", QTYPE::ANY)).unwrap()).len(), 2);
        let pointer = asked("2.0.101.10.in-addr.arpa", TYPE::PTR.into());
        assert_eq!(data(&Packet::parse(&pointer).unwrap()), ["plc-1.plant-a.nm.internal"]);
    }

    #[test]
    fn says_what_there_is_not_and_what_it_does_not_know() {
        for (name, kind, code) in [
            ("plc-1.plant-a.nm.internal", TYPE::MX, RCODE::NoError),
            ("plant-a.nm.internal", TYPE::A, RCODE::NoError),
            ("2.0.101.10.in-addr.arpa", TYPE::A, RCODE::NoError),
            ("plc-9.plant-a.nm.internal", TYPE::A, RCODE::NameError),
            ("example.net", TYPE::A, RCODE::Refused),
        ] {
            let reply = asked(name, kind.into());

            let packet = Packet::parse(&reply).unwrap();
            assert_eq!((packet.rcode(), packet.answers.len()), (code, 0), "{name}");
        }
    }

    #[test]
    fn a_type_that_nobody_knows_is_no_fault_of_the_name() {
        let question = with_type(&question(7, "plc-1.plant-a.nm.internal", QTYPE::ANY), 65_280).unwrap();
        let elsewhere = with_type(&super::tests::question(7, "git.corp.example", QTYPE::ANY), 65_280).unwrap();

        let Verdict::Answer(reply) = judge(&question, &answers(), 512) else { panic!("not answered") };

        assert_eq!(reply_code(&question, &reply), Some(RCODE::NoError));
        assert_eq!(reply[HEADER..], question[HEADER..], "the question as it was, and nothing else");
        assert!(matches!(judge(&elsewhere, &answers(), 512), Verdict::Ask(..)));
    }

    #[test]
    fn asks_those_who_know_and_has_a_word_for_their_silence() {
        let question = question(7, "git.corp.example", TYPE::A.into());

        let Verdict::Ask(servers, failure) = judge(&question, &answers(), 512) else { panic!("not asked") };

        assert_eq!(servers, ["10.101.0.53".parse::<IpAddr>().unwrap()]);
        assert_eq!(reply_code(&question, &failure), Some(RCODE::ServerFailure));
    }

    #[test]
    fn what_does_not_fit_is_to_be_asked_over_tcp() {
        let mut answers = answers();
        let many = (0..60_u8).map(|last| IpAddr::from([10, 101, 1, last])).collect();
        answers.hosts.insert("many.plant-a.nm.internal".parse().unwrap(), many);
        let question = question(7, "many.plant-a.nm.internal", TYPE::A.into());

        let reply = |room| answer(judge(&question, &answers, room));

        assert!(Packet::parse(&reply(512)).unwrap().has_flags(PacketFlag::TRUNCATION));
        assert_eq!(Packet::parse(&reply(65_535)).unwrap().answers.len(), 60);
    }

    #[test]
    fn nonsense_is_refused_or_ignored() {
        let good = question(7, "plc-1.plant-a.nm.internal", TYPE::A.into());
        let mut answer = good.clone();
        answer[2] |= 0x80;
        let mut update = good.clone();
        update[2] |= 5 << 3;

        assert_eq!(judge(&answer, &answers(), 512), Verdict::Ignore);
        assert_eq!(judge(b"\x00", &answers(), 512), Verdict::Ignore);
        for (message, code) in [(&good[..20], RCODE::FormatError), (&update, RCODE::NotImplemented)] {
            let Verdict::Answer(reply) = judge(message, &answers(), 512) else { panic!("not answered") };
            assert_eq!(reply_code(message, &reply), Some(code));
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_comes_in_is_too_much(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80), cut in 0..40_usize) {
            judge(&bytes, &answers(), 512);
            let good = question(7, "plc-1.plant-a.nm.internal", TYPE::A.into());
            let spoiled: Vec<u8> = good.iter().take(cut).copied().chain(bytes).collect();
            judge(&spoiled, &answers(), 512);
        }
    }

    fn asked(name: &str, kind: QTYPE) -> Vec<u8> {
        answer(judge(&question(7, name, kind), &answers(), 512))
    }

    fn answer(verdict: Verdict) -> Vec<u8> {
        let Verdict::Answer(reply) = verdict else { panic!("{verdict:?}") };
        reply
    }

    pub(in super::super) fn question(id: u16, name: &str, kind: QTYPE) -> Vec<u8> {
        let mut query = Packet::new_query(id);
        query.set_flags(PacketFlag::RECURSION_DESIRED);
        query.questions.push(Question::new(Name::new(name).unwrap(), kind, CLASS::IN.into(), false));
        query.build_bytes_vec().unwrap()
    }

    pub(in super::super) fn answers() -> Answers {
        let name = || "plc-1.plant-a.nm.internal".parse().unwrap();
        Answers {
            forward: [("corp.example".parse().unwrap(), vec!["10.101.0.53".parse().unwrap()])].into(),
            hosts: HostNames::from([(name(), ["10.101.0.2".parse().unwrap(), "fd00::2".parse().unwrap()].into())]),
            pointers: [("2.0.101.10.in-addr.arpa".parse().unwrap(), [name()].into())].into(),
            rest: Vec::new(),
            zones: ["plant-a.nm.internal".parse().unwrap(), "101.10.in-addr.arpa".parse().unwrap()].into(),
        }
    }

    pub(in super::super) fn data(packet: &Packet<'_>) -> Vec<String> {
        let text = |data: &RData<'_>| {
            if let RData::A(A { address }) = data {
                std::net::Ipv4Addr::from(*address).to_string()
            } else if let RData::AAAA(AAAA { address }) = data {
                std::net::Ipv6Addr::from(*address).to_string()
            } else if let RData::PTR(PTR(name)) = data {
                name.to_string()
            } else {
                panic!("{data:?}")
            }
        };
        packet.answers.iter().map(|record| text(&record.rdata)).collect()
    }
}
