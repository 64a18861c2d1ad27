//! fumehood's own executable: out of reach from inside, whoever runs it.

use std::fs;

use crate::{
    both,
    common::{Run, Who, copy_program},
};

fn read_all(run: &Run) -> Vec<u8> {
    fs::read(run.place.binary()).unwrap()
}

/// A run whose binary is a file of its own, not another name of the one under test.
fn with_own_binary(who: Who) -> Run {
    let run = Run::new(who);
    let binary = run.place.binary();
    fs::remove_file(&binary).unwrap();
    copy_program(&crate::common::binary(), &binary);
    run.place.own(&binary);
    run
}

both! {
    /// The program is `/proc/self/exe`, or has it as its interpreter: what runs must be the sandbox's, not fumehood.
    fn cve_2019_5736_the_program_is_proc_self_exe(who: Who) {
        let run = with_own_binary(who).program_args(["/proc/self/exe", "run", "--cmd", "true"]);
        let before = read_all(&run);
        let done = run.done();
        assert!([126, 127].contains(&done.code), "{done}");
        assert!(read_all(&done.run) == before);

        let run = with_own_binary(who);
        let script = run.place.write_executable("script", "#!/proc/self/exe\n");
        let done = run.arg("--file").arg(script).program_args(["./script"]).done();
        assert!(done.code != 0, "{done}");
        assert!(read_all(&done.run) == before);
    }

    /// Every executable that can be seen, opened and overwritten again and again while fumehood works.
    fn cve_2019_5736_overwriting_every_exe_in_sight(who: Who) {
        let code = "import os, time\nwrote = 0\nuntil = time.time() + 1\nwhile time.time() < until:\n\
            \x20 for pid in [p for p in os.listdir('/proc') if p.isdigit()]:\n\
            \x20   for flags in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDONLY):\n\
            \x20     try:\n\
            \x20       fd = os.open(f'/proc/{pid}/exe', flags)\n\
            \x20       if flags != os.O_RDONLY: wrote += os.write(fd, b'overwritten')\n\
            \x20       else:\n\
            \x20         try: os.open(f'/proc/self/fd/{fd}', os.O_WRONLY); wrote += 1\n\
            \x20         except OSError: pass\n\
            \x20       os.close(fd)\n\
            \x20     except OSError: pass\nprint('wrote', wrote)";
        let run = with_own_binary(who).args(["--user", "0"]).python(code);
        let before = read_all(&run);
        let done = run.done().expect_code(0).expect_out("wrote 0\n");
        assert!(read_all(&done.run) == before);
    }

    fn the_binary_is_not_reachable_by_name(who: Who) {
        let run = with_own_binary(who);
        let path = run.place.binary();
        let line = format!("ls -l {} /proc/1/exe /proc/1/root; find / -name 'fumehood*' 2>/dev/null; true", path.display());
        run.cmd(&line).done().expect_code(0).expect_out("");
    }
}
