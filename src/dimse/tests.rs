//! Two ends of a loopback connection.

use std::io::{Cursor, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::pdu::PduReader;
use super::*;

const VERIFICATION: &str = "1.2.840.10008.1.1";
const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const IMPLICIT: &str = "1.2.840.10008.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";

fn patience() -> Patience {
    let second = Duration::from_secs(1);
    Patience { artim: second, idle: 2 * second, pdu: second }
}

fn title(text: &str) -> AeTitle {
    text.parse().expect("a title")
}

fn proposal() -> Proposal {
    let syntaxes = || vec![EXPLICIT.to_owned(), IMPLICIT.to_owned()];
    let contexts = vec![(VERIFICATION.into(), syntaxes()), (CT.into(), syntaxes())];
    Proposal { calling: title("US"), called: title("THEM"), contexts, roles: Vec::new() }
}

/// Accepts all contexts with their first transfer syntax but those of other SOP classes.
fn answer(request: &Associate) -> Vec<PresentationContext> {
    let of = |p: &ProposedContext| PresentationContext {
        id: p.id,
        abstract_syntax: p.abstract_syntax.clone(),
        transfer_syntax: p.transfer_syntaxes[0].clone(),
        outcome: if [VERIFICATION, CT].contains(&p.abstract_syntax.as_str()) {
            Outcome::Accepted
        } else {
            Outcome::AbstractSyntaxNotSupported
        },
    };
    request.proposed.iter().map(of).collect()
}

/// A listener whose first connection `serve` gets; its address.
fn peer<T: Send + 'static>(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> (String, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    (address, thread::spawn(move || serve(listener.accept().expect("a connection").0)))
}

fn accepted(stream: TcpStream) -> Association<TcpChannel> {
    let pending = Pending::read(TcpChannel::new(stream, Duration::from_secs(1)).expect("a channel"), patience()).expect("a request");
    assert_eq!((pending.request.calling.as_str(), pending.request.called.as_str()), ("US", "THEM"));
    let contexts = answer(&pending.request);
    pending.accept(contexts, Vec::new(), (1, 1)).expect("the peer is there")
}

#[test]
fn an_instance_goes_over_in_pieces() {
    let sent: Vec<u8> = (0..1_000_003u32).map(|n| (n % 251) as u8).collect();
    for length in [0, 1, 131_066, 131_067, sent.len()] {
        let (address, peer) = peer(|stream| {
            let mut association = accepted(stream);
            let mut received = Vec::<u8>::new();
            loop {
                match association.receive().expect("a message") {
                    Message::Release => break association.accept_release().expect("the peer is there"),
                    Message::Command(id, command) => {
                        assert_eq!(command.requested(), Some(Request::CStore));
                        assert_eq!(association.context(id).map(|c| c.abstract_syntax.as_str()), Some(CT));
                        while let Some(fragment) = association.next_fragment().expect("data") {
                            received.extend(fragment);
                        }
                        association.send(id, &command.response(Status::SUCCESS)).expect("the peer is there");
                    }
                }
            }
            received
        });
        let mut association = connect(&address, &proposal(), patience()).expect("an association");
        assert_eq!(association.context_for(CT, IMPLICIT), None);
        let id = association.context_for(CT, EXPLICIT).expect("accepted");
        let command = Command::request(Request::CStore, 7)
            .with_text(Element::AffectedSopClassUid, CT)
            .with_text(Element::AffectedSopInstanceUid, "1.2.3")
            .with_data_set();
        for _ in 0..2 {
            association.send_with(id, &command, &mut Cursor::new(&sent[..length])).expect("the peer is there");
            let Message::Command(of, response) = association.receive().expect("an answer") else { panic!("no answer") };
            assert_eq!((of, response.status(), response.has_data_set()), (id, Status::SUCCESS, false));
            assert!(response.is_response_to(Request::CStore) && response.number(Element::MessageIdBeingRespondedTo) == Some(7));
            assert_eq!(response.text(Element::AffectedSopInstanceUid), "1.2.3");
        }
        association.release().expect("the peer agrees");
        let received = peer.join().expect("no panic");
        assert!(received == [&sent[..length], &sent[..length]].concat(), "{length} bytes");
    }
}

#[test]
fn a_rejection_says_why() {
    let (address, peer) = peer(|stream| {
        let channel = TcpChannel::new(stream, Duration::from_secs(1)).expect("a channel");
        Pending::read(channel, patience()).expect("a request").reject(Rejection::CALLED_AE_NOT_RECOGNIZED).expect("the peer is there");
    });
    let error = connect(&address, &proposal(), patience()).map(|_| ()).expect_err("rejected");
    assert!(error.to_string().contains("called AE title not recognized (result 1, source 1, reason 7)"), "{error}");
    assert!(!error.is_transient());
    peer.join().expect("no panic");
}

#[test]
fn a_silent_peer_is_not_waited_for() {
    for bytes in [&b""[..], b"\x01", b"\x01\0\0\0\x01\0only a part"] {
        let (address, peer) = peer(|stream| {
            let started = std::time::Instant::now();
            let channel = TcpChannel::new(stream, Duration::from_secs(1)).expect("a channel");
            let error = Pending::read(channel, patience()).map(|_| ()).expect_err("nothing comes");
            assert!(matches!(error, DimseError::Silent { seconds: 1 }), "{error}");
            // One second for the request, two for the peer to close.
            assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
        });
        let mut stream = TcpStream::connect(address).expect("somebody listens");
        stream.write_all(bytes).expect("sent");
        peer.join().expect("no panic");
    }
}

#[test]
fn what_is_no_dicom_is_answered_with_an_abort() {
    let request = proposal().associate();
    let mut of_a_future = request.request_pdu();
    of_a_future[7] = 2; // version 2 only
    for (sent, source) in [(b"GET / HTTP/1.1\r\n\r\n".to_vec(), 2), (pdu::pdu(pdu::kind::DATA, &[0; 8]), 2), (of_a_future, 2)] {
        let (address, peer) = peer(|stream| {
            let channel = TcpChannel::new(stream, Duration::from_secs(1)).expect("a channel");
            Pending::read(channel, patience()).map(|_| ()).expect_err("no request").to_string()
        });
        let mut stream = TcpStream::connect(address).expect("somebody listens");
        stream.write_all(&sent).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        drop(stream);
        assert_eq!((answer.len(), answer[0], answer[8]), (10, pdu::kind::ABORT, source), "{}", peer.join().expect("no panic"));
    }
}

proptest! {
    #[test]
    fn requests_come_back(called in "[A-Z0-9_]{1,16}", contexts in 1usize..128, window in (1u16..9, 1u16..9)) {
        let mut request = proposal().associate();
        request.called = title(&called);
        request.operations = window;
        request.proposed = (0..contexts).map(|n| ProposedContext { id: 2 * n as u8 + 1, ..request.proposed[n % 2].clone() }).collect();
        request.roles = vec![Role { sop_class_uid: CT.into(), scu: true, scp: false }];
        let bytes = request.request_pdu();
        let mut reader = PduReader::new();
        let pdu = reader.next(&mut bytes.as_slice()).expect("a PDU").expect("not the end");
        prop_assert_eq!(Associate::read(reader.body(pdu)).expect("a request"), request);
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 1u8..8) {
        let _ = Associate::read(&bytes);
        let _ = Command::read(&bytes);
        let _ = Rejection::read(&bytes);
        let mut reader = PduReader::new();
        let mut stream = &[&pdu::pdu(kind, &bytes)[..], &bytes].concat()[..];
        while let Ok(Some(found)) = reader.next(&mut stream) {
            let body = reader.body(found);
            let mut at = 0;
            while let Ok(value) = pdu::pdv(body, at) {
                prop_assert!(value.end > at && value.end <= body.len() && value.start <= value.end);
                at = value.end;
            }
        }
    }

    #[test]
    fn a_request_that_is_damaged_does_no_harm(at in 0usize..300, to in any::<u8>()) {
        let mut request = proposal().associate();
        request.roles = vec![Role { sop_class_uid: CT.into(), scu: true, scp: false }];
        let mut bytes = request.request_pdu();
        let at = at % bytes.len();
        bytes[at] = to;
        let _ = Associate::read(&bytes[6..]);
    }
}
