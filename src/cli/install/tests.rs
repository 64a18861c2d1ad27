use super::*;

fn wanted(runtime: &str, default: bool) -> Option<Wanted<'_>> {
    Some(Wanted { runtime, default })
}

type Edit = fn(&str, Names, Option<Wanted<'_>>) -> Result<String, String>;

/// Every engine, with configurations that people have.
const KNOWN: [(Edit, &[&str]); 3] = [
    (
        docker::edit,
        &[
            "{\n    \"log-driver\": \"journald\",\n    \"runtimes\": {\n        \"crun\": {\n            \"path\": \"/usr/bin/crun\"\n        }\n    }\n}\n",
            "{\n\t\"data-root\": \"/srv/docker\",\n\t\"insecure-registries\": [\"a:5000\", \"b:5000\"]\n}\n",
            "{ \"debug\": true }\n",
        ],
    ),
    (
        podman::edit,
        &[
            "# site\n[containers]\npids_limit = 0 # none\n\n[engine]\nevents_logger = \"file\"\n",
            "[engine.runtimes]\ncrun = [\n  \"/usr/bin/crun\",\n]\n",
            "[engine]\nruntime_supports_json = [\"crun\", \"mine\"]\n[engine.runtimes]\nmine = [\"/opt/mine\"]\n",
        ],
    ),
    (
        containerd::edit,
        &[
            "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n",
            "version = 3\nroot = '/var/lib/containerd' # here\n",
            "version = 2\ndisabled_plugins = []\n[grpc]\n  address = \"/run/c.sock\"\n",
        ],
    ),
];

#[test]
fn what_was_there_is_there_as_it_was_when_ours_is_taken_out_again() {
    for (edit, texts) in KNOWN {
        for text in texts {
            let with = edit(text, NATIVE, wanted("/usr/bin/fumehood-oci", false)).unwrap();
            assert_ne!(&with, text);
            assert!(with.contains("/usr/bin/fumehood-oci"), "{with}");
            let one_line = text.starts_with("{ ");
            for line in text.lines().filter(|line| !one_line && line.trim().len() > 3) {
                assert!(with.contains(line.trim_end_matches(']')), "{line:?} is not in {with}");
            }
            let again = edit(&with, NATIVE, wanted("/usr/bin/fumehood-oci", false)).unwrap();
            assert_eq!(again, with, "a second time changes nothing");
            let without = edit(&with, NATIVE, None).unwrap();
            let bare = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(bare(&without), bare(text));
            if !one_line {
                assert_eq!(&without, text);
            }
            assert_eq!(&edit(text, NATIVE, None).unwrap(), text, "what is not there is not taken out");
        }
    }
}

#[test]
fn a_program_that_has_moved_is_registered_anew() {
    for (edit, _) in KNOWN {
        let first = edit("", NATIVE, wanted("/a/fumehood-oci", false)).unwrap();
        let second = edit(&first, NATIVE, wanted("/b/fumehood-oci", true)).unwrap();
        assert!(!second.contains("/a/fumehood-oci") && second.contains("/b/fumehood-oci"), "{second}");
        assert_eq!(edit(&second, NATIVE, None).unwrap().trim(), "", "nothing but ours was in it");
    }
}

#[test]
fn docker_is_given_a_runtime_and_keeps_its_arguments() {
    let edited = docker::edit("", NATIVE, wanted("/x", true)).unwrap();
    let value: serde_json::Value = serde_json::from_str(&edited).unwrap();
    assert_eq!(
        value,
        serde_json::json!({ "runtimes": { "fumehood": { "path": "/x" } }, "default-runtime": "fumehood" })
    );
    let own = r#"{"runtimes":{"fumehood":{"path":"/old","runtimeArgs":["--debug"]}}}"#;
    let edited = docker::edit(own, NATIVE, wanted("/x", false)).unwrap();
    assert_eq!(edited, r#"{"runtimes":{"fumehood":{"path":"/x","runtimeArgs":["--debug"]}}}"#.to_owned() + "\n");
    assert_eq!(docker::edit(r#"{"default-runtime":"crun"}"#, NATIVE, None).unwrap(), r#"{"default-runtime":"crun"}"#);
}

#[test]
fn podman_reads_our_errors_and_those_it_read_before() {
    let edited = podman::edit("", NATIVE, wanted("/x", true)).unwrap();
    let value: toml::Table = toml::from_str(&edited).unwrap();
    let engine = value["engine"].as_table().unwrap();
    assert_eq!(engine["runtime"].as_str(), Some("fumehood"));
    assert_eq!(engine["runtimes"]["fumehood"][0].as_str(), Some("/x"));
    let read: Vec<_> = engine["runtime_supports_json"].as_array().unwrap().iter().filter_map(|v| v.as_str()).collect();
    assert_eq!(read, ["crun", "crun-vm", "runc", "kata", "runsc", "youki", "krun", "fumehood", "fumehood-oci"]);
}

#[test]
fn containerd_is_given_a_class_of_its_own_and_the_nodes_driver() {
    let node =
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = true\n";
    let value: toml::Table = toml::from_str(&containerd::edit(node, NATIVE, wanted("/x", true)).unwrap()).unwrap();
    let containerd = &value["plugins"]["io.containerd.grpc.v1.cri"]["containerd"];
    assert_eq!(containerd["default_runtime_name"].as_str(), Some("fumehood"));
    let own = &containerd["runtimes"]["fumehood"];
    assert_eq!(own["runtime_type"].as_str(), Some("io.containerd.runc.v2"));
    assert_eq!(own["options"]["BinaryName"].as_str(), Some("/x"));
    assert_eq!(own["options"]["SystemdCgroup"].as_bool(), Some(true));
    assert_eq!(own["pod_annotations"][0].as_str(), Some("io.fumehood.*"));
    let newer = containerd::edit("version = 3\n", NATIVE, wanted("/x", false)).unwrap();
    assert!(newer.contains("[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.fumehood]"), "{newer}");
}

#[test]
fn a_configuration_that_is_none_is_left_alone() {
    let refused: [(Edit, &[&str]); 3] = [
        (docker::edit, &["[]", "{", "{\"a\":1,}", "{'a':1}", "// x\n{}", "{\"runtimes\": []}", "7"]),
        (podman::edit, &["[engine", "engine = 1", "[engine]\nruntimes = 3", "[engine]\nruntime_supports_json = true"]),
        (containerd::edit, &["[plugins.cri]\nx = 1", "version = \"2\"", "version = 2\nplugins = []", "="]),
    ];
    for (edit, texts) in refused {
        for text in texts {
            let error = edit(text, NATIVE, wanted("/x", false)).expect_err(text);
            assert!(!error.is_empty() && !error.contains('\n'), "{error:?}");
        }
    }
}

mod files {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new(text: Option<&str>) -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs::write(place.0.path().join("fumehood-oci"), "").unwrap();
            if let Some(text) = text {
                fs::write(place.config(), text).unwrap();
            }
            place
        }

        fn config(&self) -> PathBuf {
            self.0.path().join("daemon.json")
        }

        fn text(&self) -> Option<String> {
            fs::read_to_string(self.config()).ok()
        }

        fn backup(&self) -> Option<String> {
            fs::read_to_string(self.0.path().join("daemon.json.before-fumehood")).ok()
        }

        fn run(&self, change: impl FnOnce(&mut Args)) -> Result<String> {
            let mut args = Args {
                isolation: Isolation::Native,
                engine: Engine::Docker,
                dry_run: false,
                uninstall: false,
                default: false,
                config: Some(self.config()),
                runtime: Some(self.0.path().join("fumehood-oci")),
            };
            change(&mut args);
            install(&args)
        }
    }

    #[test]
    fn what_is_changed_is_kept_beside_it() {
        let before = "{\n  \"debug\": true\n}\n";
        let place = Place::new(Some(before));
        fs::set_permissions(place.config(), fs::Permissions::from_mode(0o600)).unwrap();
        assert!(place.run(|_| ()).unwrap().starts_with("wrote "));
        assert_eq!(place.backup().as_deref(), Some(before));
        let with = place.text().unwrap();
        assert_eq!(fs::metadata(place.config()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(place.run(|_| ()).unwrap().contains("is as it is to be"));
        assert_eq!((place.text().unwrap(), place.backup().as_deref()), (with, Some(before)));
        place.run(|args| args.uninstall = true).unwrap();
        assert_eq!(place.text().as_deref(), Some(before));
    }

    #[test]
    fn what_is_made_by_us_alone_is_gone_again() {
        let place = Place::new(None);
        place.run(|_| ()).unwrap();
        assert!(place.text().unwrap().contains("fumehood-oci"));
        assert_eq!(place.backup(), None);
        assert!(place.run(|args| args.uninstall = true).unwrap().starts_with("remove "));
        assert_eq!(place.text(), None);
        assert!(place.run(|args| args.uninstall = true).unwrap().contains("is as it is to be"));
    }

    #[test]
    fn a_dry_run_shows_and_changes_nothing() {
        let place = Place::new(Some("{}\n"));
        let said = place.run(|args| args.dry_run = true).unwrap();
        assert!(said.contains("would write") && said.contains("\"runtimes\""), "{said}");
        assert_eq!((place.text().as_deref(), place.backup()), (Some("{}\n"), None));
    }

    #[test]
    fn a_link_stays_a_link_and_other_things_are_refused() {
        let place = Place::new(None);
        let real = place.0.path().join("real.json");
        fs::write(&real, "{}").unwrap();
        std::os::unix::fs::symlink("real.json", place.config()).unwrap();
        place.run(|_| ()).unwrap();
        assert!(place.config().is_symlink());
        assert!(fs::read_to_string(&real).unwrap().contains("fumehood-oci"));

        let place = Place::new(Some("not JSON"));
        let error = place.run(|_| ()).unwrap_err();
        assert!(error.message().contains("it is no JSON"), "{error}");
        assert_eq!(place.text().as_deref(), Some("not JSON"));
        fs::remove_file(place.config()).unwrap();
        fs::create_dir(place.config()).unwrap();
        assert!(place.run(|_| ()).is_err());
        assert!(Place::new(None).run(|args| args.runtime = Some("relative".into())).is_err());
    }
}
