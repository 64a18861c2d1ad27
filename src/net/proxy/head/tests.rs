use super::*;

fn direct(text: &str) -> Result<Option<Head>, &'static str> {
    parse(text.as_bytes(), Sent::Direct)
}

fn with(headers: &str) -> Result<Option<Head>, &'static str> {
    direct(&format!("POST / HTTP/1.1\r\n{headers}\r\n"))
}

fn host(text: &str) -> Host {
    Host::from_wire(text.as_bytes()).unwrap()
}

fn body(headers: &str) -> Body {
    match with(&format!("Host: a.com\r\n{headers}")).unwrap().unwrap().kind {
        Kind::Request { body, .. } => body,
        Kind::Connect => panic!("no request"),
    }
}

#[test]
fn a_request_is_for_its_host() {
    let text = "GET /x HTTP/1.1\r\nAccept: */*\r\nHost: A.com:8080\r\n\r\nrest";
    let head = direct(text).unwrap().unwrap();
    assert_eq!((head.end, head.host, head.port), (text.len() - 4, host("a.com"), Some(8080)));
    for length in 0..text.len() - 4 {
        assert_eq!(direct(&text[..length]), Ok(None), "{length}");
    }
    assert_eq!(with("Host: [2606::1]:80\r\n").unwrap().unwrap().host, host("[2606::1]"));
    assert_eq!(direct("GET http://a.com/x HTTP/1.1\r\nHost: a.com\r\n\r\n").unwrap().unwrap().host, host("a.com"));
    assert!(direct("OPTIONS * HTTP/1.1\r\nHost: a.com\r\n\r\n").is_ok());
}

/// Row 6: what a second reader could read differently.
#[test]
fn bypass_06_ambiguous_requests_are_refused() {
    for (headers, why) in [
        ("", "no host"),
        ("Host: a.com\r\nHost: a.com\r\n", "two hosts"),
        ("Host: a.com\r\nhost: b.com\r\n", "two hosts"),
        ("Host: a.com, b.com\r\n", "a list of hosts"),
        ("Host: a.com b.com\r\n", "two hosts in one"),
        ("Host: user@a.com\r\n", "a user"),
        ("Host: a.com:80:80\r\n", "two ports"),
        ("Host: a.com:http\r\n", "a port in words"),
        ("Host: a.com\r\n b.com\r\n", "a folded line"),
        ("Host : a.com\r\n", "a blank before the colon"),
        (" Host: a.com\r\n", "a blank before the first header"),
        ("Host: a.com\nX: y\r\n", "LF alone"),
        ("Host: a.com\rX: y\r\n", "CR alone"),
        ("Host: a.com\0\r\n", "NUL"),
        ("Host: a\u{1}.com\r\n", "a control character"),
        ("Host: 0x7f.1\r\n", "an address in disguise"),
        ("Host: \r\n", "an empty host"),
        ("Host: a.com\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n", "two framings"),
        ("Host: a.com\r\nContent-Length: 1\r\nContent-Length: 1\r\n", "two lengths"),
        ("Host: a.com\r\nContent-Length: 1, 1\r\n", "a list of lengths"),
        ("Host: a.com\r\nContent-Length: +1\r\n", "a sign"),
        ("Host: a.com\r\nContent-Length: 0x1\r\n", "another base"),
        ("Host: a.com\r\nContent-Length: 99999999999999999999\r\n", "too much"),
        ("Host: a.com\r\nTransfer-Encoding: gzip, chunked\r\n", "a second encoding"),
        ("Host: a.com\r\nTransfer-Encoding: xchunked\r\n", "an unknown encoding"),
        ("Host: a.com\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "chunked twice"),
        ("Host: a.com\r\nTransfer-Encoding: \x0bchunked\r\n", "a vertical tab"),
        ("Host: a.com\r\nUpgrade: h2c\r\n", "HTTP/2"),
        ("Host: a.com\r\nUpgrade: websocket, h2c\r\n", "HTTP/2 as well"),
        ("Host: a.com\r\nHTTP2-Settings: AAMA\r\n", "HTTP/2"),
        ("Host: a.com\r\nUpgrade: websocket\r\nContent-Length: 1\r\n", "WebSocket with a body"),
    ] {
        assert!(with(headers).is_err(), "{why}: {headers:?}");
    }
    for (line, why) in [
        ("GET http://b.com/ HTTP/1.1", "another host in the URL"),
        ("GET http://a.com:81/ HTTP/1.1", "another port in the URL"),
        ("GET http://a.com@b.com/ HTTP/1.1", "a user in the URL"),
        ("GET https://a.com/ HTTP/1.1", "a scheme that isn't meant"),
        ("GET b.com HTTP/1.1", "a host as target"),
        ("GET * HTTP/1.1", "everything"),
        ("CONNECT a.com:443 HTTP/1.1", "a tunnel"),
        ("PRI * HTTP/2.0", "HTTP/2"),
        ("GET  / HTTP/1.1", "two blanks"),
        ("GET /\tHTTP/1.1", "a tab"),
        ("GET / HTTP/1.1 ", "a blank at the end"),
        ("GET / HTTP/2.0", "a version"),
        ("GET /", "no version"),
        ("\r\nGET / HTTP/1.1", "an empty line first"),
        ("GET / x HTTP/1.1", "a blank in the target"),
    ] {
        assert!(direct(&format!("{line}\r\nHost: a.com\r\n\r\n")).is_err(), "{why}: {line:?}");
    }
    assert!(direct("POST / HTTP/1.0\r\nHost: a.com\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    let long = format!("GET /{} HTTP/1.1\r\nHost: a.com\r\n\r\n", "a".repeat(MOST));
    assert!(direct(&long).is_err());
    assert!(direct(&long[..MOST + 1]).is_err());
    assert!(with(&format!("Host: a.com\r\n{}", "A: b\r\n".repeat(MOST_HEADERS))).is_err());
}

#[test]
fn a_body_ends_where_it_says() {
    assert_eq!(body(""), Body::Length(0));
    assert_eq!(body("Content-Length: 12\r\n"), Body::Length(12));
    assert_eq!(body("Transfer-Encoding: Chunked\r\n"), Body::Chunked);
}

fn chunks(bytes: &[u8], step: usize) -> Result<(usize, bool), &'static str> {
    let (mut chunks, mut fed) = (Chunks::default(), 0);
    for part in bytes.chunks(step) {
        let taken = chunks.feed(part)?;
        fed += taken;
        if taken < part.len() {
            break;
        }
    }
    Ok((fed, chunks.is_done()))
}

#[test]
fn chunks_are_followed_to_their_end() {
    let whole = b"5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
    let followed = [&whole[..], b"GET /"].concat();
    for step in [1, 2, 3, 7, 1000] {
        assert_eq!(chunks(&followed, step), Ok((whole.len(), true)), "{step}");
    }
    assert_eq!(chunks(&whole[..whole.len() - 1], 1000), Ok((whole.len() - 1, false)));
}

#[test]
fn bypass_06_ambiguous_chunks_are_refused() {
    for bytes in [
        &b"5\nhello\r\n0\r\n\r\n"[..],
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"\r\n",
        b"0x5\r\nhello\r\n",
        b"-1\r\n",
        b" 5\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"1234567890abcdef0\r\n",
        b"5\rx\r\nhello\r\n",
        b"0\r\n\n",
    ] {
        assert!(chunks(bytes, 1000).is_err(), "{:?}", bytes.escape_ascii().to_string());
    }
    assert!(chunks(&[b'5'; MOST_LINE + 1], 1000).is_err());
    let endless = [&b"0\r\n"[..], &b"a: b\r\n".repeat(MOST)].concat();
    assert!(chunks(&endless, 1000).is_err());
}

#[test]
fn a_proxy_is_sent_whole_urls_and_passes_on_paths() {
    let text = "GET http://a.com:8080/x?y#z HTTP/1.1\r\nHost: a.com:8080\r\nProxy-Connection: keep-alive\r\n\
                Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nAccept: */*\r\n\r\n";
    let head = parse(text.as_bytes(), Sent::Proxied).unwrap().unwrap();
    assert_eq!((head.host, head.port), (host("a.com"), Some(8080)));
    let Kind::Request { direct: Some(direct), .. } = head.kind else { panic!("no request") };
    assert_eq!(
        String::from_utf8(direct).unwrap(),
        "GET /x?y HTTP/1.1\r\nHost: a.com:8080\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let connect = parse(b"CONNECT a.com:443 HTTP/1.1\r\nHost: a.com:443\r\n\r\n", Sent::Proxied).unwrap().unwrap();
    assert_eq!((connect.host, connect.port, connect.kind), (host("a.com"), Some(443), Kind::Connect));
    for none in [
        "GET / HTTP/1.1\r\nHost: a.com\r\n\r\n",
        "GET https://a.com/ HTTP/1.1\r\nHost: a.com\r\n\r\n",
        "CONNECT a.com HTTP/1.1\r\n\r\n",
        "CONNECT a.com:0 HTTP/1.1\r\n\r\n",
        "CONNECT user@a.com:443 HTTP/1.1\r\n\r\n",
        "CONNECT http://a.com:443 HTTP/1.1\r\n\r\n",
        "CONNECT a.com\0.b.com:443 HTTP/1.1\r\n\r\n",
        "CONNECT 0x7f.1:443 HTTP/1.1\r\n\r\n",
        "CONNECT ::1:443 HTTP/1.1\r\n\r\n",
        "GET http://a.com/ HTTP/1.1\r\nHost: b.com\r\n\r\n",
        "GET http://a.com/ HTTP/1.1\r\nHost: a.com\r\nUpgrade: websocket\r\n\r\n",
    ] {
        assert!(parse(none.as_bytes(), Sent::Proxied).is_err(), "{none:?}");
    }
}

#[test]
fn a_path_may_have_a_url_in_it() {
    let found = direct("GET /login?next=https://example.com/ HTTP/1.1\r\nHost: a.com\r\n\r\n").unwrap().unwrap();
    assert_eq!(found.host, host("a.com"));
    assert!(parse(b"GET /http://a.com/ HTTP/1.1\r\nHost: a.com\r\n\r\n", Sent::Proxied).is_err());
}

#[test]
fn what_may_be_http_is_taken_for_it() {
    for http in [
        "GET /",
        "get / http/1.1\r\n",
        "\r\n\r\nGET /",
        " GET /",
        "GET\t/",
        "POST / HTTP/1.1\r\n",
        "FOO / HTTP/1.1\r\n",
        "a b http/1.0\n",
        "PRI * HTTP/2.0\r\n",
        "x http/",
        "PROXY TCP4 ",
        "CONNECT a",
        "\r\n\r\n\0\r\nQUIT\n",
        "GET\x0b/\x0bHTTP/1.1",
        "GET\x0c/",
        "GET\r/ HTTP/1.1",
        "\x0bGET / HTTP/1.1",
        "\x1c\x1d\x1e\x1fGET\x1f/",
        "FOO\x1c/\x1dHTTP/1.1",
    ] {
        assert_eq!(looks(http.as_bytes()), Looks::Http, "{http:?}");
    }
    for blank in [0x85, 0xa0] {
        for http in [&[b"GET", &[blank][..], b"/"].concat(), &[&[blank][..], b"GET /"].concat()] {
            assert_eq!(looks(http), Looks::Http, "{}", http.escape_ascii());
        }
    }
    for other in [
        "SSH-2.0-x y\r\n",
        "PING\r\n",
        "*1\r\n$4\r\nPING\r\n",
        "\0\0\0\x08\x04\x52\x16\x2f",
        "EHLO a\r\n",
        "USER x\r\n",
        "0032git-upload-pack /x\0host=a\0",
        "\u{1}GET / HTTP/1.1\r\n",
        "JRMI\0",
        "(x) y",
    ] {
        assert_eq!(looks(other.as_bytes()), Looks::Other, "{other:?}");
    }
    for open in ["", "\r\n", "G", "GE", "SSH-2.0-x y", "FOO /"] {
        assert_eq!(looks(open.as_bytes()), Looks::Open, "{open:?}");
    }
    assert_eq!(looks(&[b'a'; 100]), Looks::Open);
    assert_eq!(looks(&[b'a'; MOST + 1]), Looks::Http);
    assert_eq!(looks(&[b"a ", &[b'b'; MOST][..]].concat()), Looks::Http);
}

#[test]
fn an_offer_of_websocket_is_whole() {
    const WHOLE: &str =
        "Upgrade: websocket\r\nConnection: x, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let asked = |line: &str, headers: &str| direct(&format!("{line} HTTP/1.1\r\nHost: a.com\r\n{headers}\r\n"));
    let Kind::Request { upgrade, .. } = asked("GET /", WHOLE).unwrap().unwrap().kind else { panic!() };
    assert_eq!(upgrade, Some(Upgrade { accept: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned() }));
    assert!(asked("POST /", WHOLE).is_err());
    for line in WHOLE.lines().skip(1) {
        assert!(asked("GET /", &WHOLE.replace(&format!("{line}\r\n"), "")).is_err(), "{line}");
    }
    assert!(asked("GET /", &format!("{WHOLE}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")).is_err());
}

#[test]
fn a_switch_is_seen_behind_what_is_said_before() {
    let upgrade = Upgrade::with(b"dGhlIHNhbXBsZSBub25jZQ==");
    let is_switched = |answer: &[u8]| is_switched(&upgrade, answer);
    let taken = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let switched = format!("HTTP/1.1 101 Switching Protocols\r\n{taken}\r\n\x01");
    assert_eq!(is_switched(switched.as_bytes()), Some(true));
    assert_eq!(is_switched(format!("HTTP/1.1 103 Early Hints\r\n\r\n{switched}").as_bytes()), Some(true));
    // Not every 101 is an answer to the offer.
    for none in [
        "",
        "Upgrade: websocket\r\n",
        &taken.replace("s3p", "S3p"),
        &taken.replace("websocket", "h2c"),
        &taken.repeat(2),
    ] {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{none}\r\n");
        assert_eq!(is_switched(answer.as_bytes()), Some(false), "{none}");
    }
    assert_eq!(is_switched(b"HTTP/1.1 200 OK\r\n\r\n"), Some(false));
    assert_eq!(is_switched(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), Some(false));
    assert_eq!(is_switched(b"HTTP/1.1 101 Switching"), None);
    assert_eq!(is_switched(b"\x16\x03\x03"), Some(false));
}

#[test]
fn bypass_06_chunks_are_passed_on_as_ours() {
    let body = b"3;a=\"b\"\r\nabc\r\n00002\r\nde\r\n0;x\r\nHost: evil.com\r\nX: y\r\n\r\nrest";
    let mut out = Vec::new();
    assert_eq!(Chunks::default().renew(body, &mut out), Ok(body.len() - 4));
    assert_eq!(out, b"5\r\nabcde\r\n0\r\n\r\n");
    // However it is cut.
    let (mut chunks, mut out) = (Chunks::default(), Vec::new());
    for byte in &body[..body.len() - 4] {
        assert_eq!(chunks.renew(&[*byte], &mut out), Ok(1));
    }
    assert!(chunks.is_done());
    assert_eq!(out, b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n1\r\nd\r\n1\r\ne\r\n0\r\n\r\n");
}
