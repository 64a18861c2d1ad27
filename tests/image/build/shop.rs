//! A store and recipes that a test works with over several calls, and packages that it makes itself.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::{
    common::{Place, Run, Who, skip},
    registry::liar::{Asked, Liar, Reply, ok, status},
};

#[derive(Debug)]
pub struct Shop {
    pub place: Place,
    pub who: Who,
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Shop {
    pub fn new(who: Who) -> Self {
        Self { place: Place::new(who), who }
    }

    pub fn store(&self) -> PathBuf {
        self.place.join("store")
    }

    /// Beside the sandboxes of a [`Run`].
    pub fn try_call(&self, args: &[&str]) -> Output {
        let mut command = Command::new(self.place.binary());
        command.args(args).current_dir(self.place.path()).env_clear().env("FUMEHOOD_STORE", self.store());
        command.env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.place.path());
        command.env("XDG_RUNTIME_DIR", self.place.join("runtime-dir"));
        // As this host's package managers are told, so that what needs its network has it.
        for name in ["PIP_CERT", "SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "no_proxy"]
        {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        if let Some((uid, gid)) = self.who.ids() {
            command.uid(uid).gid(gid);
        }
        command.output().unwrap()
    }

    #[track_caller]
    pub fn call(&self, args: &[&str]) -> Output {
        let output = self.try_call(args);
        assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        output
    }

    /// What a call says of why it failed.
    #[track_caller]
    pub fn error(&self, args: &[&str]) -> String {
        let output = self.try_call(args);
        assert_eq!(output.status.code(), Some(125), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stderr)
    }

    /// Builds `recipe.toml` of this content.
    #[track_caller]
    pub fn build(&self, recipe: &str, more: &[&str]) -> Value {
        self.place.write("recipe.toml", recipe);
        let args: Vec<_> =
            ["image", "build", "./recipe.toml", "--json", "--quiet"].iter().chain(more).copied().collect();
        serde_json::from_slice(&self.call(&args).stdout).unwrap()
    }

    /// What the image says of itself.
    #[track_caller]
    pub fn says(&self, image: &str) -> Value {
        serde_json::from_slice(&self.call(&["image", "inspect", image]).stdout).unwrap()
    }

    pub fn run(&self) -> Run {
        Run::new(self.who).env("FUMEHOOD_STORE", self.store())
    }

    pub fn run_image(&self, image: &str) -> Run {
        self.run().args(["--image", image])
    }
}

/// Whether all of these are there; if not, said aloud.
pub fn has(test: &str, tools: &[(&str, &str)]) -> bool {
    let missing = tools.iter().find(|(path, _)| !Path::new(path).exists());
    if let Some((path, package)) = missing {
        skip(test, &format!("there is no {path}: apt install {package}"));
    }
    missing.is_none()
}

/// A wheel as pip takes it: a module that has the number.
pub fn wheel(place: &Place, dir: &str, name: &str, number: u32) {
    const MAKE: &str = r#"
import sys, zipfile
path, name, number = sys.argv[1:]
info = f"{name}-1.0.dist-info/"
files = {
    f"{name}/__init__.py": f"NUMBER = {number}\n",
    info + "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
    info + "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
record = "".join(f"{file},,\n" for file in files) + info + "RECORD,,\n"
with zipfile.ZipFile(path, "w") as wheel:
    for file, text in files.items():
        wheel.writestr(file, text)
    wheel.writestr(info + "RECORD", record)
"#;
    place.mkdir(dir);
    let path = place.join(dir).join(format!("{name}-1.0-py3-none-any.whl"));
    let made =
        Command::new("/usr/bin/python3").args(["-c", MAKE]).arg(&path).args([name, &number.to_string()]).status();
    assert!(made.unwrap().success());
    place.own(&path);
}

/// What `npm pack` writes of a module that has the number, for both ways of importing.
pub fn module(name: &str, number: u32) -> Vec<u8> {
    let package = json!({"name": name, "version": "1.0.0", "main": "index.js"}).to_string();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (path, text) in [("package.json", package), ("index.js", format!("exports.number = {number};\n"))] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("package/{path}"), text.as_bytes()).unwrap();
    }
    let mut packed = tar.into_inner().unwrap();
    packed.flush().unwrap();
    packed.finish().unwrap()
}

/// An index on loopback, of the files of a directory: as pip asks one, and as npm does.
pub fn index(dir: PathBuf) -> Liar {
    let answer = move |asked: &Asked| -> Reply {
        let path = asked.path.trim_matches('/').to_owned();
        let names = || std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        if let Some(file) = path.strip_prefix("files/") {
            return match std::fs::read(dir.join(file.rsplit('/').next().unwrap())) {
                Ok(bytes) => ok("Content-Type: application/octet-stream\r\n", &bytes),
                Err(_) => status(404, "", b""),
            };
        }
        if let Some(project) = path.strip_prefix("simple/") {
            let links = names().filter(|file| file.starts_with(&format!("{project}-")));
            let links: String = links.map(|file| format!("<a href=\"/files/{file}\">{file}</a>\n")).collect();
            let found = if links.is_empty() { 404 } else { 200 };
            return status(found, "Content-Type: text/html\r\n", links.as_bytes());
        }
        let file = format!("{path}-1.0.0.tgz");
        if !names().any(|name| name == file) {
            return status(404, "Content-Type: application/json\r\n", b"{}");
        }
        let host = &asked.headers["host"];
        let version =
            json!({"name": path, "version": "1.0.0", "dist": {"tarball": format!("http://{host}/files/{file}")}});
        let document = json!({"name": path, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}});
        ok("Content-Type: application/json\r\n", document.to_string().as_bytes())
    };
    Liar::start(answer)
}
