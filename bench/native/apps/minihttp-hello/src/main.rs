// may_minihttp, one scheduler worker.
use bytes::BufMut;
use may_minihttp::{HttpServer, HttpService, Request, Response};
use std::io::{self, BufRead};

#[derive(serde::Serialize)]
struct Message {
    message: &'static str,
    number: u32,
}

const MESSAGE: Message = Message {
    message: "Hello, World!",
    number: 7,
};

#[derive(Clone)]
struct App;

impl HttpService for App {
    fn call(&mut self, req: Request, res: &mut Response) -> io::Result<()> {
        let kind = if req.path() == "/json" {
            "Content-Type: application/json"
        } else {
            "Content-Type: text/plain"
        };
        res.header(kind);
        match (req.method(), req.path()) {
            ("GET", "/hello") => res.body("hello world"),
            ("GET", "/json") => serde_json::to_writer(res.body_mut().writer(), &MESSAGE)?,
            ("POST", "/len") => {
                let mut n = 0usize;
                let mut b = req.body();
                loop {
                    let c = b.fill_buf()?.len();
                    if c == 0 {
                        break;
                    }
                    n += c;
                    b.consume(c);
                }
                res.body_vec(n.to_string().into_bytes());
            }
            _ => {
                res.status_code(404, "Not Found");
            }
        }
        Ok(())
    }
}

fn main() {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    may::config().set_workers(1).set_stack_size(0x2000);
    HttpServer(App)
        .start(("127.0.0.1", port))
        .unwrap()
        .join()
        .unwrap();
}
