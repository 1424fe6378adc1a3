//! Pages as they come out of [`Pages`], in one piece and byte by byte.

use super::*;

const BELOW: &str = "/p";

fn passed(page: &[u8], piece: usize) -> Vec<u8> {
    let links = Links::new(BELOW.to_owned(), vec!["10.0.0.1:80".to_owned()], None);
    let mut pages = Pages::new(links, Vec::new());
    for piece in page.chunks(piece) {
        pages.write_all(piece).expect("is written");
        assert!(pages.kept.len() <= TAG_BYTES_MAX + piece.len());
    }
    pages.finish().expect("ends")
}

/// However the page is cut into pieces.
fn check(page: &str, expected: &str) {
    for piece in [1, 2, 3, 7, page.len().max(1)] {
        let passed = String::from_utf8(passed(page.as_bytes(), piece)).expect("text");
        assert_eq!(passed, expected, "in pieces of {piece}");
    }
}

fn same(page: &str) {
    check(page, page);
}

#[test]
fn links_of_the_same_server() {
    check(r#"<a href="/x">x</a>"#, r#"<a href="/p/x">x</a>"#);
    check(r#"<A HREF='/x' class=a>x</A>"#, r#"<A HREF='/p/x' class=a>x</A>"#);
    check("<a href=/x>", r#"<a href="/p/x">"#);
    check("<img src=/a.png alt=b/>", r#"<img src="/p/a.png" alt=b/>"#);
    check(
        r#"<link rel="icon" href = "http://10.0.0.1:80/i?a=1&amp;b=2"/>"#,
        r#"<link rel="icon" href = "/p/i?a=1&amp;b=2"/>"#,
    );
    check(
        r#"<form action="/f" method=post><input src=/i formaction=" /j "></form>"#,
        r#"<form action="/p/f" method=post><input src="/p/i" formaction="/p/j"></form>"#,
    );
    check(
        r#"<video poster="/a" src="/b" data-src="/c">"#,
        r#"<video poster="/p/a" src="/p/b" data-src="/c">"#,
    );
    check(r#"<a href="&#x2F;x&#47;y?a&amp;b">"#, r#"<a href="/p/x/y?a&amp;b">"#);
    check("<a\n\thref\n=\n\"/x\"\n>", "<a\n\thref\n=\n\"/p/x\"\n>");
    check(r#"<a b href="/x" href2="/y">"#, r#"<a b href="/p/x" href2="/y">"#);
}

#[test]
fn what_is_no_link_of_the_same_server() {
    same(
        r##"<a href="x"><a href="#t"><a href="//example.com/x"><a href="https://example.com/"><a href="">"##,
    );
    same(r#"<div href="/x"><p src=/x></p><a title="/x"></a></a href="/x">"#);
    same("a < b > c <3 </ x> <> & <");
    same("<a href=\"/x");
    same("<a href=\"\u{e4}/x\">ü");
}

#[test]
fn what_only_looks_like_a_tag() {
    same(r#"<!-- <a href="/x"> --> <!DOCTYPE html> <?xml <a href="/x" ?>"#);
    check(r#"<!--> <a href="/x">"#, r#"<!--> <a href="/p/x">"#);
    check(r#"<!-- a --!><a href="/x">"#, r#"<!-- a --!><a href="/p/x">"#);
    check(r#"<a title=">" href="/x">"#, r#"<a title=">" href="/p/x">"#);
    check(
        r#"<script src="/s">'<a href="/x">'</scriptx></script ><a href="/y">"#,
        r#"<script src="/p/s">'<a href="/x">'</scriptx></script ><a href="/p/y">"#,
    );
    check(r#"<TITLE><a href="/x"></title><a href="/y">"#, r#"<TITLE><a href="/x"></title><a href="/p/y">"#);
    check(r#"<textarea><!--</textarea><a href="/y">"#, r#"<textarea><!--</textarea><a href="/p/y">"#);
}

#[test]
fn what_is_not_text_passes() {
    let page = b"<a href=\"\xff/x\">\xfe<a href=\"/x\">";
    for piece in [1, page.len()] {
        assert_eq!(passed(page, piece), b"<a href=\"\xff/x\">\xfe<a href=\"/p/x\">");
    }
}

/// A tag that does not end holds back a bounded part of the page, and reading it byte by byte takes no longer.
#[test]
fn a_tag_without_an_end() {
    let page = format!("<a {}", ">\"'".repeat(1 << 16).replace('>', "="));
    same(&page);
    let quoted = format!("<a href=\"{}", ">".repeat(3 * TAG_BYTES_MAX));
    assert_eq!(passed(quoted.as_bytes(), 1), quoted.as_bytes());
}
