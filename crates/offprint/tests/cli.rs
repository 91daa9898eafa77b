//! The command line as scripts and people meet it: JSON, help, exit codes, bad input.

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

fn offprint(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("offprint").unwrap();
    command.args(arguments);
    command
}

fn json(arguments: &[&str]) -> Value {
    let done = offprint(arguments).assert().success();
    serde_json::from_slice(&done.get_output().stdout).expect("one JSON document on standard output")
}

fn scratch() -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out").display().to_string();
    (directory, out)
}

#[test]
fn papers_as_json_are_the_contract_of_the_readme() {
    let papers = json(&["papers", "--json"]);
    let papers = papers.as_array().unwrap();
    assert_eq!(papers.len(), offprint::papers().len());
    for paper in papers {
        for key in ["slug", "field", "title", "arxiv"] {
            assert!(paper[key].is_string(), "{key}");
        }
        assert!(paper["year"].is_u64());
        for claim in paper["claims"].as_array().unwrap() {
            for key in ["id", "says", "paper_value", "where", "holds_if"] {
                assert!(claim[key].is_string(), "{key}");
            }
        }
    }
}

#[test]
fn papers_are_found_by_field_and_by_words_even_misspelt() {
    let slugs = |arguments: &[&str]| -> Vec<String> {
        json(arguments).as_array().unwrap().iter().map(|p| p["slug"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(slugs(&["papers", "--field", "signal", "--json"]), ["spright", "oodl"]);
    assert_eq!(slugs(&["papers", "--search", "walsh hadamard", "--json"]), ["spright"]);
    assert_eq!(slugs(&["papers", "--search", "schrodinger", "--json"]), ["lightsb", "interpolants"]);
    assert_eq!(slugs(&["papers", "--search", "hadamrad", "--json"]), ["spright"]);
    offprint(&["papers", "--search", "nothing like this"]).assert().success().stdout(contains("No paper matches"));
    offprint(&["papers", "--field", "astrology"]).assert().code(2).stderr(contains("signal"));
}

#[test]
fn show_prints_claims_and_notes_without_control_codes() {
    for paper in offprint::papers() {
        let card = paper.card();
        let no_codes = contains('\u{1b}').not();
        offprint(&["show", &card.slug])
            .assert()
            .success()
            .stdout(contains(&card.title).and(contains(&card.claims[0].id)).and(no_codes));
        let document = json(&["show", &card.slug, "--json"]);
        assert_eq!(document["notes"], paper.notes);
        assert!(document["parameters"]["properties"].is_object());
    }
}

#[test]
fn help_of_a_run_tells_every_parameter() {
    for paper in offprint::papers() {
        let slug = &paper.card().slug;
        let help = offprint(&["run", slug, "--help"]).assert().success().get_output().stdout.clone();
        let help = String::from_utf8(help).unwrap();
        for argument in paper.command("paper").get_arguments() {
            if let Some(long) = argument.get_long() {
                assert!(help.contains(&format!("--{long}")), "{slug}: --{long}");
            }
        }
        for flag in ["--seed", "--out", "--threads", "--json"] {
            assert!(help.contains(flag), "{slug}: {flag}");
        }
    }
}

#[test]
fn mistyped_names_get_a_suggestion() {
    offprint(&["run", "sprigt"]).assert().code(2).stderr(contains("spright"));
    offprint(&["show", "sprigt"]).assert().code(2).stderr(contains("spright"));
    offprint(&["reproduce", "lihgtsb"]).assert().code(2).stderr(contains("lightsb"));
    offprint(&["run", "spright", "--sed", "1"]).assert().code(2).stderr(contains("--seed"));
    offprint(&["run", "spright", "--no-such-flag"]).assert().code(2).stderr(contains("--no-such-flag"));
}

#[test]
fn a_run_leaves_a_report_and_prints_one_json_document() {
    for paper in offprint::papers() {
        let slug = &paper.card().slug;
        let (_directory, out) = scratch();
        let report = json(&["run", slug, "--seed", "3", "--out", &out, "--json"]);
        assert_eq!(report["paper"], **slug);
        assert_eq!(report["seed"], 3);
        assert_eq!(report["out"], *out);
        assert!(report["parameters"].is_object());
        assert!(report["seconds"].as_f64().unwrap() > 0.0);
        assert!(report["tables"].is_array());
        for (name, metric) in report["metrics"].as_object().unwrap() {
            assert!(metric["unit"].is_string(), "{slug}: {name}");
        }
        let listed: Vec<&str> = ["figures", "files"]
            .iter()
            .flat_map(|k| report[k].as_array().unwrap())
            .map(|p| p.as_str().unwrap())
            .collect();
        assert!(!report["figures"].as_array().unwrap().is_empty());
        for path in listed {
            assert!(Path::new(path).metadata().unwrap().len() > 0, "{path}");
        }
        for file in ["report.json", "report.html"] {
            assert!(Path::new(&out).join(file).is_file(), "{slug}: {file}");
        }
        let page = std::fs::read_to_string(Path::new(&out).join("report.html")).unwrap();
        assert!(
            page.contains("<svg") && !page.contains("src=\"http"),
            "{slug}: the page carries its figures and loads nothing"
        );
    }
}

#[test]
fn a_run_for_people_ends_with_a_plot_and_the_place_of_its_report() {
    let (directory, _) = scratch();
    let mut command = offprint(&["run", "spright"]);
    command.current_dir(directory.path());
    command.assert().success().stdout(contains("report.html").and(contains("runs/")).and(contains('\u{1b}').not()));
    assert_eq!(std::fs::read_dir(directory.path().join("runs")).unwrap().count(), 1);
}

#[test]
fn reproduce_as_json_is_the_contract_of_the_readme() {
    let (directory, out) = scratch();
    let results = directory.path().join("RESULTS.md");
    let results = results.to_str().unwrap();
    let stale = "# Results\n\n## spright: old\n\n| old |\n\n## oodl: measured before\n\nkept\n";
    std::fs::write(results, stale).unwrap();
    let document = json(&["reproduce", "spright", "--quick", "--out", &out, "--write", results, "--json"]);
    assert_eq!(document["paper"], "spright");
    assert_eq!(document["scale"], "quick");
    let claims = document["claims"].as_array().unwrap();
    assert!(claims.len() >= 3);
    for claim in claims {
        assert!(claim["id"].is_string() && claim["holds_if"].is_string() && claim["why"].is_string());
        assert!(claim["measured"].is_number() || claim["measured"].is_null());
        assert!(["holds", "falls short", "not measured"].contains(&claim["verdict"].as_str().unwrap()));
        assert!(claim["seconds"].is_number());
    }
    let table = std::fs::read_to_string(results).unwrap();
    assert_eq!(table.lines().filter(|l| l.starts_with("| ")).count(), claims.len() + 2);
    assert!(table.ends_with("\n\n## oodl: measured before\n\nkept\n") && !table.contains("| old |"), "{table}");
    offprint(&["reproduce"]).assert().code(2);
    offprint(&["reproduce", "spright", "--quick", "--full"]).assert().code(2);
}

#[test]
fn samplers_are_compared_on_one_model() {
    let (_directory, out) = scratch();
    let small = ["compare", "samplers", "--samplers", "ddim,heun,ancestral", "--steps", "5,9", "--count", "20"];
    let document = json(&[&small[..], &["--out", &out, "--json"]].concat());
    assert_eq!(document["paper"], "samplers");
    let table = &document["tables"][0];
    assert_eq!(table["columns"][2]["values"], serde_json::json!([5, 9, 9, 17, 5, 9]), "{table}");
    let page = std::fs::read_to_string(format!("{out}/report.html")).unwrap();
    assert!(
        page.contains("Quality against cost") && page.contains("comparison") && !page.contains("class=\"authors\"")
    );
    offprint(&["compare", "samplers", "--samplers", "dim"]).assert().code(2).stderr(contains("dim"));
    offprint(&["compare", "samplers", "--lowest", "90"]).assert().code(2).stderr(contains("--lowest"));
}

#[test]
fn an_output_directory_that_cannot_be_made_is_told_before_the_work() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let out = file.path().join("out").display().to_string();
    offprint(&["run", "spright", "--out", &out]).assert().code(4).stdout("").stderr(contains("cannot create"));
}

#[test]
fn bad_input_has_its_exit_code_names_the_culprit_and_leaves_no_directory() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let ragged = place("ragged.csv", b"1,2\n3\n");
    let empty = place("empty.csv", b"");
    let truncated = place("truncated.npy", b"\x93NUMPY\x01\x00\x76\x00{'descr'");
    let missing = directory.path().join("missing.npy").display().to_string();
    let out = directory.path().join("out");
    let cases: [(&[&str], i32, &str); 8] = [
        (&["run", "spright", "--input", &missing], 4, "missing.npy"),
        (&["run", "spright", "--input", &empty], 3, "empty"),
        (&["run", "spright", "--input", &truncated], 3, "truncated.npy"),
        (&["run", "oodl", "--input", &ragged], 3, "line 2 has 1 values"),
        (&["run", "lightsb", "--x0", &ragged, "--x1", &ragged], 3, "ragged.csv"),
        (&["run", "sparse-ot", "--cost", &truncated], 3, "truncated.npy"),
        (&["run", "sparse-ot", "--gamma", "-1"], 2, "--gamma"),
        (&["run", "sparse-ot", "--gamma", "nan"], 2, "finite"),
    ];
    for (arguments, code, word) in cases {
        let mut command = offprint(arguments);
        command.args(["--json", "--out", out.to_str().unwrap()]);
        command.assert().code(code).stdout("").stderr(contains(word));
        assert!(!out.exists(), "{arguments:?} left a directory");
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        offprint(&["completions", shell]).assert().success().stdout(contains("spright"));
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_keeps_what_is_done_and_says_so() {
    use std::process::Stdio;
    use std::time::Duration;
    let (_directory, out) = scratch();
    // Endless rows on standard input: the learner goes on until it is asked to stop.
    let mut feed = std::process::Command::new("sh")
        .args(["-c", "while :; do echo 1,2,3; echo 2,-1,0.5; done"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let child = std::process::Command::new(assert_cmd::cargo::cargo_bin("offprint"))
        .args(["run", "oodl", "--input", "-", "--out", &out])
        .stdin(feed.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let interrupted = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let done = child.wait_with_output().unwrap();
    let _ = feed.kill();
    let _ = feed.wait();
    assert_eq!(done.status.code(), Some(130), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stderr).contains("what was finished is kept"));
    let report: Value = serde_json::from_slice(&std::fs::read(Path::new(&out).join("report.json")).unwrap()).unwrap();
    assert_eq!(report["complete"], false);
    let kept = report["files"].as_array().unwrap();
    assert!(kept.iter().any(|f| f.as_str().unwrap().ends_with(".safetensors")), "{kept:?}");
}
