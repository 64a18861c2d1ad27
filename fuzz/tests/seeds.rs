//! Every seed of every target, and thousands of mutations of them, on stable and without a fuzzer.

use std::{fs, path::Path};

use fumehood_fuzz::TARGETS;

const MUTATIONS: usize = 400;

/// xorshift64*: the same mutations every time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn mutate(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
        const TELLING: &[u8] = b"\0\xff/.:=-*{}[]\",09\n";
        let mut data = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(data.len() + 1);
            match self.below(6) {
                0 => data.truncate(at),
                1 => data.insert(at, TELLING[self.below(TELLING.len())]),
                2 if at < data.len() => data[at] ^= 1 << self.below(8),
                3 if at < data.len() => _ = data.remove(at),
                4 => data.splice(at..at, seed.iter().copied().take(16)).for_each(drop),
                _ => data.splice(at.., other[other.len().min(at)..].iter().copied()).for_each(drop),
            }
        }
        data
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", dir.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn every_seed_and_its_mutations_hold() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for seed in &seeds {
            target(seed);
            for _ in 0..MUTATIONS {
                let other = &seeds[random.below(seeds.len())];
                let data = random.mutate(seed, other);
                let result = std::panic::catch_unwind(|| target(&data));
                assert!(result.is_ok(), "{name} fails on {:?}", String::from_utf8_lossy(&data));
            }
        }
    }
}

/// A target that is in the manifest and not in the table would be fuzzed and never tested.
#[test]
fn every_target_is_in_the_table() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut names: Vec<_> = TARGETS.map(|(name, _)| format!("{name}.rs")).into();
    names.sort();
    assert_eq!(files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect::<Vec<_>>(), names);
}
