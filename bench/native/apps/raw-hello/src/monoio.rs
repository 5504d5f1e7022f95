mod proto;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};

async fn conn(mut s: monoio::net::TcpStream) {
    let _ = s.set_nodelay(true);
    let mut st = proto::State::default();
    let mut buf: Vec<u8> = Vec::with_capacity(16384);
    let mut kept: Vec<u8> = Vec::new();
    let mut out: Vec<u8> = Vec::with_capacity(4096);
    loop {
        let (r, b) = s.read(buf).await;
        buf = b;
        let Ok(n) = r else { return };
        if n == 0 {
            return;
        }
        if kept.is_empty() {
            let Some(used) = st.feed(&buf[..n], &mut out) else {
                return;
            };
            kept.extend_from_slice(&buf[used..n]);
        } else {
            kept.extend_from_slice(&buf[..n]);
            let Some(used) = st.feed(&kept, &mut out) else {
                return;
            };
            kept.drain(..used);
        }
        if !out.is_empty() {
            let (r, o) = s.write_all(out).await;
            out = o;
            if r.is_err() {
                return;
            }
            out.clear();
        }
    }
}

fn main() {
    let l = proto::listener();
    l.set_nonblocking(false).unwrap();
    monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .with_entries(4096)
        .build()
        .unwrap()
        .block_on(async move {
            let l = monoio::net::TcpListener::from_std(l).unwrap();
            loop {
                if let Ok((s, _)) = l.accept().await {
                    monoio::spawn(conn(s));
                }
            }
        });
}
