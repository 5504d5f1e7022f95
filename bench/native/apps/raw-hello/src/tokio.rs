mod proto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn conn(mut s: tokio::net::TcpStream) {
    let _ = s.set_nodelay(true);
    let mut st = proto::State::default();
    let mut buf = vec![0u8; 16384].into_boxed_slice();
    let mut have = 0;
    let mut out: Vec<u8> = Vec::with_capacity(4096);
    loop {
        if have == buf.len() {
            return;
        }
        let Ok(n) = s.read(&mut buf[have..]).await else {
            return;
        };
        if n == 0 {
            return;
        }
        have += n;
        let Some(used) = st.feed(&buf[..have], &mut out) else {
            return;
        };
        buf.copy_within(used..have, 0);
        have -= used;
        if !out.is_empty() {
            if s.write_all(&out).await.is_err() {
                return;
            }
            out.clear();
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let l = proto::listener();
    l.set_nonblocking(true).unwrap();
    let l = tokio::net::TcpListener::from_std(l).unwrap();
    loop {
        if let Ok((s, _)) = l.accept().await {
            tokio::spawn(conn(s));
        }
    }
}
