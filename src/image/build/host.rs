//! Programs of this host, for an image that has nothing else: each with what loads it, the libraries it wants, and what
//! its `#!` line names. Files are read, and none of them is run, the loader neither.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsStr,
    fs,
    io::Read,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Component, Path, PathBuf},
};

use elf::{ElfStream, abi, endian::AnyEndian};

use super::{
    BuildError, Result,
    contents::{Contents, Kind, Node, Taken},
};
use crate::request::mounts::inside_path;

const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// As many links as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Takes what the words name, and all that it needs.
pub fn take<'a>(words: impl Iterator<Item = &'a str>) -> Result<Contents> {
    let mut taking = Taking { contents: Contents::default(), seen: HashSet::new(), libraries: Libraries::find() };
    for word in words {
        let path = if word.contains('/') {
            let path = inside_path(Path::new(word)).filter(|path| path != Path::new("/"));
            path.ok_or_else(|| BuildError::HostPath { word: word.to_owned() })?
        } else {
            in_path(word).ok_or_else(|| BuildError::NoProgram { word: word.to_owned(), wanted_by: None })?
        };
        taking.take(&path)?;
    }
    Ok(taking.contents)
}

fn in_path(name: &str) -> Option<PathBuf> {
    let runs = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0);
    PATH.iter().map(|dir| Path::new(dir).join(name)).find(runs)
}

struct Taking {
    contents: Contents,
    /// Files whose needs are known.
    seen: HashSet<PathBuf>,
    libraries: Libraries,
}

impl Taking {
    /// `path` and every link on the way to it, with what it needs.
    fn take(&mut self, path: &Path) -> Result {
        let found = self.follow(path)?;
        if fs::metadata(&found).is_ok_and(|found| found.is_dir()) {
            let mut tree = Contents::default();
            tree.take(&found, &found, Taken::CLEAN)?;
            for file in tree.host_files() {
                self.needs(&file, false)?;
            }
            return self.contents.take(&found, &found, Taken::CLEAN);
        }
        if self.contents.has(&found) {
            return Ok(());
        }
        self.contents.take(&found, &found, Taken::AS_USUAL)?;
        self.needs(&found, true)
    }

    /// Where it leads. Directories and links that are passed are in the image as they are here.
    fn follow(&mut self, path: &Path) -> Result<PathBuf> {
        let failed = |path: &Path| BuildError::io("look at", path.to_owned());
        let mut left: Vec<PathBuf> = path.components().rev().map(|part| part.as_os_str().into()).collect();
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        while let Some(part) = left.pop() {
            match part.components().next() {
                Some(Component::Normal(name)) => at.push(name),
                Some(Component::RootDir) => at = PathBuf::from("/"),
                Some(Component::ParentDir) => _ = at.pop(),
                _ => {}
            }
            if at == Path::new("/") {
                continue;
            }
            let found = fs::symlink_metadata(&at).map_err(failed(&at))?;
            if found.is_symlink() {
                links += 1;
                if links > MOST_LINKS {
                    return Err(failed(path)(std::io::Error::from_raw_os_error(libc::ELOOP)));
                }
                let to = fs::read_link(&at).map_err(failed(&at))?;
                self.contents.add(&at, Node { mode: 0o777, owner: (0, 0), kind: Kind::Link(to.clone()) })?;
                left.extend(to.components().rev().map(|part| PathBuf::from(part.as_os_str())));
                at.pop();
            } else if found.is_dir() && !self.contents.has(&at) {
                self.contents.add_dir(&at, 0o755)?;
            }
        }
        Ok(at)
    }

    /// Scripts of a tree are mostly there to be read: what runs one of them is taken by its name.
    fn needs(&mut self, file: &Path, scripts: bool) -> Result {
        if !self.seen.insert(file.to_owned()) {
            return Ok(());
        }
        let failed = BuildError::io("read", file);
        let mut opened = fs::File::open(file).map_err(failed)?;
        let mut head = Vec::new();
        opened.by_ref().take(256).read_to_end(&mut head).map_err(BuildError::io("read", file))?;
        if head.starts_with(b"\x7fELF") {
            return self.needs_of_program(file, opened);
        }
        let runs = opened.metadata().is_ok_and(|found| found.permissions().mode() & 0o111 != 0);
        if scripts && runs && head.starts_with(b"#!") {
            return self.needs_of_script(file, &head);
        }
        Ok(())
    }

    fn needs_of_script(&mut self, file: &Path, head: &[u8]) -> Result {
        let line = head[2..].split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(OsStr::from_bytes);
        let Some(interpreter) = words.next().map(Path::new).filter(|path| path.is_absolute()) else { return Ok(()) };
        self.take(interpreter)?;
        // `env` looks for the first word that is neither an option nor an assignment.
        if interpreter.file_name() != Some(OsStr::new("env")) {
            return Ok(());
        }
        let mut words = words.filter_map(OsStr::to_str);
        let Some(name) = words.find(|word| !word.starts_with('-') && !word.contains('=')) else { return Ok(()) };
        let missing = || BuildError::NoProgram { word: name.to_owned(), wanted_by: Some(file.to_owned()) };
        let program = in_path(name).ok_or_else(missing)?;
        self.take(&program)
    }

    fn needs_of_program(&mut self, file: &Path, opened: fs::File) -> Result {
        let program = Program::read(opened).map_err(|why| BuildError::Elf { path: file.to_owned(), why })?;
        if let Some(loader) = &program.loader {
            self.take(loader)?;
        }
        for name in &program.wanted {
            let library = self.libraries.locate(name, file, &program);
            let library = library.ok_or_else(|| BuildError::NoLibrary {
                name: name.display().to_string(),
                wanted_by: file.to_owned(),
            })?;
            self.take(&library)?;
            // What is in no directory that every loader knows is found by the cache alone.
            if self.libraries.is_cached(&library, &program) {
                self.take(Path::new("/etc/ld.so.cache"))?;
            }
        }
        Ok(())
    }
}

/// What a program or a library says it needs.
struct Program {
    loader: Option<PathBuf>,
    wanted: Vec<PathBuf>,
    /// Where to look first; $ORIGIN is where it lies.
    search: Vec<String>,
    /// For which machine, and of which size: a library for another is none.
    machine: (u16, bool),
}

impl Program {
    fn read(file: fs::File) -> std::result::Result<Self, String> {
        let bad = |error: elf::ParseError| error.to_string();
        let mut elf = ElfStream::<AnyEndian, _>::open_stream(file).map_err(bad)?;
        let machine = (elf.ehdr.e_machine, elf.ehdr.class == elf::file::Class::ELF64);
        let loader = elf.segments().iter().find(|segment| segment.p_type == abi::PT_INTERP).copied();
        let loader = loader.map(|segment| elf.segment_data(&segment).map(<[u8]>::to_vec)).transpose().map_err(bad)?;
        let loader = loader.map(|bytes| bytes.into_iter().take_while(|byte| *byte != 0).collect::<Vec<u8>>());
        let mut program = Self {
            loader: loader.map(|bytes| PathBuf::from(OsStr::from_bytes(&bytes))).filter(|path| path.is_absolute()),
            wanted: Vec::new(),
            search: Vec::new(),
            machine,
        };
        let entries: Vec<_> = match elf.dynamic().map_err(bad)? {
            Some(table) => table.iter().collect(),
            None => return Ok(program),
        };
        let value = |tag: i64| entries.iter().find(|entry| entry.d_tag == tag).map(elf::dynamic::Dyn::d_val);
        let (Some(at), Some(size)) = (value(abi::DT_STRTAB), value(abi::DT_STRSZ)) else { return Ok(program) };
        let holds = |segment: &&elf::segment::ProgramHeader| {
            segment.p_type == abi::PT_LOAD
                && (segment.p_vaddr..segment.p_vaddr.saturating_add(segment.p_filesz)).contains(&at)
        };
        let segment = *elf.segments().iter().find(holds).ok_or("its names are in none of its segments")?;
        let data = elf.segment_data(&segment).map_err(bad)?;
        let from = usize::try_from(at - segment.p_vaddr).unwrap_or(usize::MAX);
        let names = data.get(from..).unwrap_or_default();
        let names = &names[..names.len().min(usize::try_from(size).unwrap_or(usize::MAX))];
        let text = |offset: u64| {
            let from = names.get(usize::try_from(offset).unwrap_or(usize::MAX)..)?;
            Some(OsStr::from_bytes(from.split(|byte| *byte == 0).next()?))
        };
        // DT_RUNPATH, where there is one, in place of DT_RPATH (ld.so(8)).
        let tag = if value(abi::DT_RUNPATH).is_some() { abi::DT_RUNPATH } else { abi::DT_RPATH };
        for entry in &entries {
            let Some(name) = text(entry.d_val()) else { continue };
            if entry.d_tag == abi::DT_NEEDED {
                program.wanted.push(name.into());
            } else if entry.d_tag == tag {
                program.search.extend(name.to_string_lossy().split(':').map(str::to_owned));
            }
        }
        Ok(program)
    }
}

/// Where libraries are.
struct Libraries {
    /// Of /etc/ld.so.conf.
    configured: Vec<PathBuf>,
}

impl Libraries {
    fn find() -> Self {
        let mut configured = Vec::new();
        configuration(Path::new("/etc/ld.so.conf"), &mut configured, 0);
        Self { configured }
    }

    /// Those that loaders know without being told, on any distribution.
    fn usual(machine: (u16, bool)) -> Vec<PathBuf> {
        let multiarch = match machine {
            (abi::EM_X86_64, true) => Some("x86_64-linux-gnu"),
            (abi::EM_AARCH64, _) => Some("aarch64-linux-gnu"),
            (abi::EM_386, _) => Some("i386-linux-gnu"),
            (abi::EM_ARM, _) => Some("arm-linux-gnueabihf"),
            _ => None,
        };
        let plain = if machine.1 { ["/lib64", "/usr/lib64"] } else { ["/lib32", "/usr/lib32"] };
        let multiarch = multiarch.into_iter().flat_map(|name| [format!("/lib/{name}"), format!("/usr/lib/{name}")]);
        let plain = plain.into_iter().chain(["/lib", "/usr/lib"]).map(str::to_owned);
        multiarch.chain(plain).map(PathBuf::from).collect()
    }

    fn locate(&self, name: &Path, by: &Path, program: &Program) -> Option<PathBuf> {
        let fits = |path: &PathBuf| {
            let file = fs::File::open(path).ok()?;
            Program::read(file).ok().filter(|library| library.machine == program.machine).map(|_| ())
        };
        if name.is_absolute() {
            return fits(&name.to_owned()).map(|()| name.to_owned());
        }
        let origin = by.parent().unwrap_or(Path::new("/")).display().to_string();
        let own = program.search.iter().map(|dir| dir.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin));
        let own = own.map(PathBuf::from).filter(|dir| dir.is_absolute());
        let dirs = own.chain(Self::usual(program.machine)).chain(self.configured.iter().cloned());
        dirs.map(|dir| dir.join(name)).find(|path| fits(path).is_some())
    }

    fn is_cached(&self, library: &Path, program: &Program) -> bool {
        let dir = library.parent().unwrap_or(Path::new("/"));
        self.configured.iter().any(|known| known == dir)
            && !Self::usual(program.machine).iter().any(|known| known == dir)
    }
}

fn configuration(path: &Path, dirs: &mut Vec<PathBuf>, depth: usize) {
    let Ok(text) = fs::read_to_string(path) else { return };
    for line in text.lines().map(str::trim) {
        if let Some(pattern) = line.strip_prefix("include ") {
            let pattern = Path::new(pattern.trim());
            let (Some(dir), Some(name)) = (pattern.parent(), pattern.file_name().and_then(OsStr::to_str)) else {
                continue;
            };
            let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
            let fitting = names.filter(|found| fast_glob::glob_match(name, found.as_bytes())).collect::<BTreeSet<_>>();
            if depth < 4 {
                fitting.iter().for_each(|name| configuration(&dir.join(name), dirs, depth + 1));
            }
        } else if line.starts_with('/') {
            dirs.push(line.into());
        }
    }
}
