//! The three parts as processes, talking over loopback.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

struct Part(Child);

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

fn start(part: &str, port: u16, env: &[(&str, &str)]) -> Part {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    command.arg(part).env("PORT", port.to_string()).envs(env.iter().copied());
    Part(command.spawn().expect("it starts"))
}

fn ask(port: u16, text: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
    stream.write_all(text.as_bytes()).map_err(|e| e.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|e| e.to_string())?;
    Ok(answer)
}

fn get(port: u16, path: &str) -> Result<String, String> {
    ask(port, &format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n"))
}

fn until(what: &str, look: impl Fn() -> Result<String, String>, good: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match look() {
            Ok(answer) if good(&answer) => return,
            last if Instant::now() > deadline => panic!("{what}: {last:?}"),
            _ => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

#[test]
fn an_item_goes_from_the_form_to_the_disk_and_a_told_part_ends_in_order() {
    let folder = std::env::temp_dir().join(format!("kedge-t-parts-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (web, api, store) = (free_port(), free_port(), free_port());
    let secret = ("SHOP_PASSWORD", "between-us");
    let _store = start("store", store, &[secret, ("DATA_DIR", folder.to_str().expect("a plain path"))]);
    let _api = start("api", api, &[secret, ("STORE_ADDRESS", &format!("127.0.0.1:{store}"))]);
    let mut page = start("web", web, &[("API_ADDRESS", &format!("127.0.0.1:{api}")), ("COLOR", "teal")]);
    until("ready", || get(web, "/readyz"), |a| a.starts_with("HTTP/1.1 200"));

    let form = "name=an+anchor";
    let request =
        format!("POST /add HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{form}", form.len());
    let answer = ask(web, &request).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    let answer = get(web, "/").expect("the page");
    assert!(answer.contains("<li>an anchor</li>") && answer.contains("teal"), "{answer}");
    assert!(std::fs::read_to_string(folder.join("items.json")).expect("the file").contains("an anchor"));
    let refused = get(store, "/items").expect("an answer");
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");

    let mut slow = TcpStream::connect(("127.0.0.1", web)).expect("connects");
    assert!(Command::new("kill").arg(page.0.id().to_string()).status().expect("kill runs").success());
    until("not ready any more", || get(web, "/readyz"), |a| a.starts_with("HTTP/1.1 503"));
    let answer = get(web, "/").expect("who comes late is still answered");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    slow.set_read_timeout(Some(Duration::from_millis(500))).expect("waits");
    let closed = slow.read(&mut [0]);
    assert!(closed.is_err(), "who has connected and not asked yet is waited for: {closed:?}");
    slow.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").expect("asks");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(page.0.wait().expect("it ends").success());
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_part_that_is_replaced_is_waited_for() {
    let folder = std::env::temp_dir().join(format!("kedge-t-replaced-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (web, api, store) = (free_port(), free_port(), free_port());
    let secret = ("SHOP_PASSWORD", "between-us");
    let data = ("DATA_DIR", folder.to_str().expect("a plain path"));
    let _web = start("web", web, &[("API_ADDRESS", &format!("127.0.0.1:{api}"))]);
    let _api = start("api", api, &[secret, ("STORE_ADDRESS", &format!("127.0.0.1:{store}"))]);
    until("ready without the store", || get(web, "/readyz"), |a| a.starts_with("HTTP/1.1 200"));
    let asked = std::thread::spawn(move || get(web, "/"));
    // Nobody has answered yet, as nobody could.
    until("the api is asked", || get(api, "/readyz"), |a| a.starts_with("HTTP/1.1 200"));
    let _store = start("store", store, &[secret, data]);
    let answer = asked.join().expect("asked").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    std::fs::remove_dir_all(folder).expect("removed");
}
