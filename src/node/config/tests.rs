//! Configurations that are right, and wrong.

use super::*;

const EXAMPLE: &str = r#"
ae_title = "NODE"
listen = ["127.0.0.1:0"]

[[peer]]
ae_title = "CT1"
from = ["127.0.0.1", "10.1.0.0/16"]

[[package]]
name = "ct-tissue"
deliver = ["PACS"]

[package.priors]
from = "OLD"
modalities = ["CT"]

[[archive]]
name = "OLD"
ae_title = "CT1"
address = "127.0.0.1:4243"
retrieve = "move"

[[destination]]
name = "PACS"
ae_title = "ORTHANC"
address = "127.0.0.1:4242"
tls = { certificate = "node.pem", key = "node.key", ca = "ca.pem" }

[[destination]]
name = "CLOUD"
url = "https://127.0.0.1/dicom-web"
tls = { ca = "ca.pem" }
forms = "sr,seg,labelmap"
instead = { labelmap = "seg" }

[[rule]]
name = "stroke"
calling = ["CT1"]
when = [{ tag = "StudyDescription", matches = "(?i)stroke" }, { tag = "Rows", range = [256, inf] }]
urgent = true
deliver = ["CLOUD"]

[[tls_listen]]
address = "127.0.0.1:2762"
certificate = "node.pem"
key = "node.key"
client_ca = "ca.pem"
"#;

#[test]
fn every_default_is_written_out_and_read_again() {
    for text in ["", EXAMPLE] {
        let config: Config = text.parse().expect("a configuration");
        assert_eq!(config.to_toml().parse::<Config>().expect("what we write"), config, "{}", config.to_toml());
    }
}

#[test]
fn a_wrong_one_says_where() {
    for (from, to, expected) in [
        ("ae_title = \"NODE\"", "ae_title = \"\"", "line 2"),
        ("from = [", "form = [", "line 7"),
        ("10.1.0.0/16", "10.1.0.0/33", "line 7"),
        ("deliver = [\"PACS\"]", "deliver = [\"VNA\"]", "package `ct-tissue`: delivers to `VNA`, which is no destination"),
        ("deliver = [\"PACS\"]", "results = \"sr,word\"", "no form of results is called `word`"),
        ("client_ca = \"ca.pem\"", "", "client_ca"),
        ("tag = \"StudyDescription\"", "tag = \"PatientName\"", "can identify a person"),
        ("matches = \"(?i)stroke\"", "matches = \"(\"", "line 39"),
        ("deliver = [\"CLOUD\"]", "deliver = [\"VNA\"]", "rule `stroke`: delivers to `VNA`, which is no destination"),
        ("calling = [\"CT1\"]", "packages = [\"x\"]", "rule `stroke`: is about `x`, which is no package here"),
        ("https://", "http://", "destination `CLOUD`: `tls` is for https"),
        ("tls = { ca = \"ca.pem\" }", "", "https needs `tls"),
        ("url =", "commitment = true\nurl =", "no storage commitment by DICOMweb"),
        ("url =", "address = \"x:1\"\nurl =", "give either `ae_title` and `address`, or `url`"),
        ("tls = { ca", "tls = { key = \"k\", ca", "certificate and key go together"),
        ("[[peer]]", "[worker]\non_device_loss = \"gpu\"\n[[peer]]", "line 6"),
        ("[[peer]]", "worker = { sessions = 0 }\n[[peer]]", "worker.sessions: not between 1 and 64"),
        ("[[peer]]", "worker = { patches = 65 }\n[[peer]]", "worker.patches: not between 1 and 64"),
        ("[[peer]]", "retain = { received_days = -1 }\n[[peer]]", "retain: days and GB are 0 or more"),
        (
            "deliver = [\"PACS\"]",
            "deliver = [\"CLOUD\"]\nresults = \"labelmap\"",
            "sends seg instead of labelmap, and package `ct-tissue` does not make it",
        ),
        ("from = \"OLD\"", "from = \"NEW\"", "package `ct-tissue`: has priors from `NEW`, which is no archive"),
        ("from = \"OLD\"", "from = \"OLD\"\nhow_many = 11", "priors.how_many is 11"),
        ("ae_title = \"CT1\"\naddress", "ae_title = \"CT2\"\naddress", "archive `OLD`: sends by C-MOVE: make it a [[peer]]"),
        ("[[package]]", "query = \"NEW\"\n[[package]]", "peer `CT1`: is asked for at `NEW`, which is no archive"),
        ("[[peer]]", "http = { listen = \"0.0.0.0:80\" }\n[[peer]]", "http.listen: not on this machine alone"),
        ("[[peer]]", "http = { head_s = 0 }\n[[peer]]", "http.head_s: 0"),
        ("[[peer]]", "http = { head_s = 9223372036854775807 }\n[[peer]]", "http.head_s: more than"),
        ("[[peer]]", "limits = { artim_s = 9223372036854775807 }\n[[peer]]", "limits.artim_s: not between"),
        ("ae_title", "log = \"xml\"\nae_title", "line 2"),
    ] {
        let error = EXAMPLE.replacen(from, to, 1).parse::<Config>().expect_err(to).to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn a_node_that_nobody_can_call_is_a_mistake() {
    let error = "listen = []".parse::<Config>().expect_err("nowhere").to_string();
    assert!(error.contains("listen: no address"), "{error}");
}

#[test]
fn who_may_call() {
    let config: Config = EXAMPLE.parse().expect("a configuration");
    let title = |text: &str| text.parse::<AeTitle>().expect("a title");
    let from = |text: &str| text.parse::<IpAddr>().expect("an address");
    assert!(config.admits(&title("CT1"), from("127.0.0.1")));
    assert!(config.admits(&title("CT1"), from("::ffff:10.1.200.3")));
    assert!(!config.admits(&title("CT1"), from("10.2.0.1")));
    assert!(!config.admits(&title("CT2"), from("127.0.0.1")));
    assert!(!Config::default().admits(&title("CT1"), from("127.0.0.1")), "closed by default");
}
