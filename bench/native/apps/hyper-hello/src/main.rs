// Bare hyper service on a tokio current_thread runtime.
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;

#[derive(serde::Serialize)]
struct Message {
    message: &'static str,
    number: u32,
}

const MESSAGE: Message = Message {
    message: "Hello, World!",
    number: 7,
};

async fn handle(req: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut kind = "text/plain";
    let body = match (req.method(), req.uri().path()) {
        (&Method::GET, "/hello") => Bytes::from_static(b"hello world"),
        (&Method::GET, "/json") => {
            kind = "application/json";
            Bytes::from(serde_json::to_vec(&MESSAGE).unwrap())
        }
        (&Method::POST, "/len") => {
            let mut n = 0usize;
            let mut b = req.into_body();
            while let Some(Ok(f)) = b.frame().await {
                n += f.data_ref().map_or(0, |d| d.len());
            }
            Bytes::from(n.to_string())
        }
        _ => {
            let mut r = Response::new(Full::default());
            *r.status_mut() = StatusCode::NOT_FOUND;
            return Ok(r);
        }
    };
    let mut r = Response::new(Full::new(body));
    r.headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    Ok(r)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    let sock = tokio::net::TcpSocket::new_v4().unwrap();
    sock.set_reuseaddr(true).unwrap();
    sock.bind(([127, 0, 0, 1], port).into()).unwrap();
    let l = sock.listen(4096).unwrap();
    loop {
        let Ok((s, _)) = l.accept().await else {
            continue;
        };
        let _ = s.set_nodelay(true);
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(s), service_fn(handle))
                .await;
        });
    }
}
