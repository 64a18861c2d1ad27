//! The gateway of a sandbox that was made ahead lets out what its job may reach, and nothing that another's may.

use fumehood::{
    Pool, Sandbox,
    net::policy::{Mode, Policy, Rule},
    pool::Settings,
    request::Network,
};

use crate::world::{ALLOWED, OTHER, World};

/// A job that tries both names, one of which it may reach.
fn job(allowed: &str) -> Sandbox {
    let mut policy = Policy::new(Mode::Filtered).unwrap();
    for rule in Rule::list(allowed).unwrap() {
        policy.allow(rule).unwrap();
    }
    let code = format!(
        "import urllib.request\n\
         for name in ['{ALLOWED}', '{OTHER}']:\n\
         \ttry: print(urllib.request.urlopen(f'http://{{name}}/x', timeout=20).read().decode(), end='')\n\
         \texcept OSError: print('not', name)\n"
    );
    let mut sandbox = Sandbox::code(code);
    sandbox.network(Network::Gateway(Box::new(policy)));
    sandbox
}

#[test]
fn what_a_job_may_reach_is_its_own() {
    each_reaches_its_own("what_a_job_may_reach_is_its_own", &|_| {});
}

#[test]
fn what_a_job_in_gvisor_may_reach_is_its_own() {
    const NAME: &str = "what_a_job_in_gvisor_may_reach_is_its_own";
    let Some(gvisor) = crate::gvisor::found(NAME) else { return };
    each_reaches_its_own(NAME, &|sandbox| _ = sandbox.gvisor(gvisor.clone()));
}

fn each_reaches_its_own(name: &str, prepare: &dyn Fn(&mut Sandbox)) {
    let Some(world) = World::new(name) else { return };
    let pool = Pool::new(Settings { most: 2, ..Settings::default() });
    let job = |allowed| {
        let mut sandbox = job(allowed);
        prepare(&mut sandbox);
        sandbox
    };
    // Both are made for jobs like the first, and before anybody knows of the second.
    assert_eq!(pool.expect(&mut job(ALLOWED), 2).unwrap(), 2);
    world.assert_untouched();
    for (allowed, denied, said) in [
        (ALLOWED, OTHER, format!("/x of {ALLOWED}\nnot {OTHER}\n")),
        (OTHER, ALLOWED, format!("not {ALLOWED}\n/x of {OTHER}\n")),
    ] {
        let outcome = pool.output(&mut job(allowed)).unwrap();
        assert_eq!(String::from_utf8_lossy(&outcome.stdout.bytes), said, "{outcome:?}");
        let denials: Vec<_> = outcome.denials.as_slice().iter().map(|denial| denial.target.clone()).collect();
        assert!(denials.iter().any(|target| target.contains(denied)), "{denials:?}");
        assert!(!denials.iter().any(|target| target.contains(allowed)), "{denials:?}");
    }
    assert_eq!(pool.counts().0, 2);
}
