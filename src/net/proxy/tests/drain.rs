//! What clients sent before they ended gets there, and nothing is waited for without need.

use std::{io::Read, sync::mpsc, time::Duration};

use super::world::{PATIENCE, PUBLIC, World, exactly, send};

fn drained(world: &World, grace: Duration) {
    let (done, told) = mpsc::channel();
    world.proxy.drain(grace, move || _ = done.send(()));
    told.recv_timeout(PATIENCE).unwrap();
}

fn example() -> World {
    let world = World::new(r#"{"allow":["example.com"]}"#);
    world.name("example.com", &["93.184.215.14"]);
    world
}

#[test]
fn what_was_sent_at_the_very_end_gets_there() {
    // More than the proxy reads at once, so that some of it is on its way when the client is gone.
    const LENGTH: usize = 3 << 20;
    let world = example();
    let got = world.record(PUBLIC, 7, b"");
    let address = world.lookup("example.com").unwrap();
    for _ in 0..20 {
        let mut client = world.connect(address, 7);
        send(&mut client, b"\x01last words");
    }
    send(&mut world.connect(address, 7), vec![1; LENGTH]);
    drained(&world, PATIENCE);
    let mut lengths: Vec<_> = (0..21).map(|_| got.recv_timeout(PATIENCE).unwrap().len()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [vec![11; 20], vec![LENGTH]].concat());
}

#[test]
fn nobody_waits_for_an_answer_without_a_client() {
    let world = example();
    let (heard, hearing) = mpsc::channel();
    world.serve(PUBLIC, 7, move |mut client| {
        assert_eq!(exactly(&mut client, 2), b"\x01a");
        // Its own end comes only when the proxy's has come.
        let end = client.read(&mut [0; 9]);
        heard.send(end.unwrap()).unwrap();
        _ = client.read(&mut [0; 9]);
        std::thread::sleep(PATIENCE);
    });
    let mut client = world.connect_to("example.com", 7);
    send(&mut client, b"\x01a");
    drop(client);
    drained(&world, PATIENCE * 100);
    assert_eq!(hearing.recv_timeout(PATIENCE).unwrap(), 0);
}

#[test]
fn a_server_that_takes_nothing_is_given_up() {
    let world = example();
    let (stuck, end) = mpsc::channel();
    world.serve(PUBLIC, 7, move |client| stuck.send(client).unwrap());
    let mut client = world.connect_to("example.com", 7);
    let writing = std::thread::spawn(move || {
        send(&mut client, vec![1; 64 << 20]);
    });
    let _server = end.recv_timeout(PATIENCE).unwrap();
    drained(&world, Duration::from_millis(100));
    drop(world);
    // The client has heard.
    writing.join().unwrap();
}

#[test]
fn without_connections_it_ends_at_once() {
    let world = example();
    drained(&world, PATIENCE * 100);
}
