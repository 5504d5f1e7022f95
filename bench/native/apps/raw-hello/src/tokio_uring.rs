mod proto;

async fn conn(s: tokio_uring::net::TcpStream) {
    let _ = s.set_nodelay(true);
    let mut st = proto::State::default();
    let mut buf: Vec<u8> = vec![0; 16384];
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
    let mut rb = tokio_uring::uring_builder();
    rb.setup_coop_taskrun();
    tokio_uring::builder()
        .entries(4096)
        .uring_builder(&rb)
        .start(async move {
            let l = tokio_uring::net::TcpListener::from_std(l);
            loop {
                if let Ok((s, _)) = l.accept().await {
                    tokio_uring::spawn(conn(s));
                }
            }
        });
}
