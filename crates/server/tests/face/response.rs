//! What a handler can answer with.

use std::io::Write;
use std::sync::Arc;

use serde_json::json;
use theframework::cookie::{Cookie, SameSite};
use theframework::http::Request as HttpRequest;
use theframework::http::header::{CONTENT_TYPE, HeaderValue};
use theframework::{App, Bytes, Next, Request, Response, StatusCode};

use crate::{field, fields, on_all, text};

static LARGE: [u8; 100_000] = [b'L'; 100_000];

#[test]
fn each_kind_of_body_has_its_type_and_its_bytes() {
    let make = || {
        App::new()
            .state(Bytes::from(Arc::<[u8]>::from(vec![b'S'; 50_000]).to_vec()))
            .get("/text", |_: &mut Request, response: &mut Response| {
                response.text("grün");
            })
            .get("/html", |_: &mut Request, response: &mut Response| {
                response.html("<p>");
            })
            .get("/json", |_: &mut Request, response: &mut Response| {
                response.json(&json!({"a": [1, 2]}))
            })
            .get("/own-type", |_: &mut Request, response: &mut Response| {
                response.set_header(CONTENT_TYPE, HeaderValue::from_static("text/csv"))?;
                response.text("a,b");
                Ok(())
            })
            .get("/copied", |_: &mut Request, response: &mut Response| {
                response.copy_body(&LARGE[..30_000]);
            })
            .get("/static", |_: &mut Request, response: &mut Response| {
                response.set_body(&LARGE[..]);
            })
            .get(
                "/shared",
                |request: &mut Request, response: &mut Response| {
                    response.set_body(request.state::<Bytes>().clone());
                },
            )
            .get("/owned", |_: &mut Request, response: &mut Response| {
                response.set_body(vec![b'O'; 5000]);
            })
            .get("/small", |_: &mut Request, response: &mut Response| {
                response.set_body("small");
            })
            .get("/written", |_: &mut Request, response: &mut Response| {
                for number in 0..1000 {
                    writeln!(response.body_writer(), "{number}")?;
                }
                Ok(())
            })
            .get("/last", |_: &mut Request, response: &mut Response| {
                response.set_body("first");
                response.text("second");
                response.clear_body();
                response.text("third");
            })
            .get("/nothing", |_: &mut Request, _: &mut Response| {})
            .post("/echo", |request: &mut Request, response: &mut Response| {
                response.copy_body(request.body());
            })
    };
    on_all(make, |client| {
        let written: String = (0..1000).map(|number| format!("{number}\n")).collect();
        let long = |byte: u8, len: usize| String::from_utf8(vec![byte; len]).unwrap();
        for (target, media, body) in [
            ("/text", "text/plain; charset=utf-8", "grün".to_owned()),
            ("/html", "text/html; charset=utf-8", "<p>".to_owned()),
            ("/json", "application/json", "{\"a\":[1,2]}".to_owned()),
            ("/own-type", "text/csv", "a,b".to_owned()),
            ("/copied", "", long(b'L', 30_000)),
            ("/static", "", long(b'L', 100_000)),
            ("/shared", "", long(b'S', 50_000)),
            ("/owned", "", long(b'O', 5000)),
            ("/small", "", "small".to_owned()),
            ("/written", "", written),
            ("/last", "text/plain; charset=utf-8", "third".to_owned()),
            ("/nothing", "", String::new()),
        ] {
            let answer = client.get(target);
            assert_eq!(answer.status(), 200);
            assert_eq!(field(&answer, "content-type"), media, "{target}");
            assert_eq!(field(&answer, "content-length"), body.len().to_string());
            assert!(text(&answer) == body, "{target}: {}", text(&answer).len());
            // The same without the body.
            let head = client.send(HttpRequest::head(target).body("").unwrap());
            assert_eq!(field(&head, "content-length"), body.len().to_string());
            assert!(head.body().is_empty());
        }
        let request = HttpRequest::post("/echo")
            .body(vec![b'e'; 200_000])
            .unwrap();
        assert!(client.send(request).body().iter().all(|&byte| byte == b'e'));
    });
}

#[test]
fn fields_are_set_added_and_removed_in_any_case() {
    let make = || {
        App::new().get("/", |_: &mut Request, response: &mut Response| {
            response
                .append_header("X-Many", "one")?
                .append_header("x-many", "two")?;
            response.set_header("X-One", "first")?;
            response.set_header("x-ONE", "second")?;
            response.set_header("X-Gone", "here")?;
            assert!(response.remove_header("x-gone") && !response.remove_header("x-gone"));
            assert_eq!(response.header("X-one"), Some(&b"second"[..]));
            for number in 0..300 {
                response.set_header(format!("X-Number-{number}"), number.to_string())?;
            }
            response.text("done");
            Ok(())
        })
    };
    on_all(make, |client| {
        // Again and again on one connection: what one response had is not in the next.
        for _ in 0..3 {
            let answer = client.get("/");
            assert_eq!(fields(&answer, "x-many"), ["one", "two"]);
            assert_eq!(fields(&answer, "x-one"), ["second"]);
            assert_eq!(fields(&answer, "x-gone"), Vec::<&str>::new());
            assert_eq!(field(&answer, "x-number-299"), "299");
            assert_eq!(text(&answer), "done");
        }
    });
}

#[test]
fn no_field_carries_another_one() {
    let make = || {
        App::new()
            .get("/name", |_: &mut Request, response: &mut Response| {
                response.set_header("X: y\r\nX-Evil", "1")?;
                Ok(())
            })
            .get(
                "/value",
                |request: &mut Request, response: &mut Response| {
                    response.set_header("X-A", request.query_value("a").unwrap().as_bytes())?;
                    Ok(())
                },
            )
            .get("/away", |request: &mut Request, response: &mut Response| {
                response.redirect(request.query_value("to").unwrap().as_bytes())?;
                Ok(())
            })
    };
    on_all(make, |client| {
        for target in [
            "/name",
            "/value?a=x%0d%0aX-Evil:1",
            "/value?a=x%00",
            "/away?to=%0aX-Evil:1",
        ] {
            let answer = client.get(target);
            assert_eq!(answer.status(), 500, "{target}");
            assert_eq!(field(&answer, "x-evil"), "");
        }
        assert_eq!(client.get("/value?a=%C3%BC").headers()["x-a"], "ü");
    });
}

#[test]
fn redirects_and_cookies_are_fields() {
    let make = || {
        App::new()
            .get("/found", |_: &mut Request, response: &mut Response| {
                response.text("not sent");
                response.redirect("/there")?;
                Ok(())
            })
            .get("/moved", |_: &mut Request, response: &mut Response| {
                response.set_status(StatusCode::MOVED_PERMANENTLY);
                response.redirect("/there")?;
                Ok(())
            })
            .get("/cookies", |_: &mut Request, response: &mut Response| {
                let cookie = Cookie::build(("a", "1; x"))
                    .path("/")
                    .http_only(true)
                    .secure(true)
                    .same_site(SameSite::Strict);
                response.set_cookie(&cookie.build())?;
                response.set_cookie(&Cookie::new("b", "2"))?;
                Ok(())
            })
    };
    on_all(make, |client| {
        let answer = client.get("/found");
        assert_eq!((answer.status().as_u16(), text(&answer)), (302, ""));
        assert_eq!(field(&answer, "location"), "/there");
        assert_eq!(client.get("/moved").status(), 301);
        assert_eq!(
            fields(&client.get("/cookies"), "set-cookie"),
            [
                "a=1%3B%20x; HttpOnly; SameSite=Strict; Secure; Path=/",
                "b=2"
            ]
        );
    });
}

#[test]
fn what_may_have_no_body_has_none() {
    let make = || {
        App::new().get(
            "/{status}",
            |request: &mut Request, response: &mut Response| {
                let status: u16 = request.param_as("status")?;
                response.set_status(StatusCode::from_u16(status)?);
                response.text("a body");
                Ok(())
            },
        )
    };
    on_all(make, |client| {
        for (status, answered, body) in [
            (200, 200, "a body"),
            (204, 204, ""),
            (304, 304, ""),
            (404, 404, "a body"),
            (599, 599, "a body"),
            // No handler sends an interim response as its last.
            (100, 500, "a body"),
            (101, 500, "a body"),
        ] {
            let answer = client.get(&format!("/{status}"));
            assert_eq!((answer.status().as_u16(), text(&answer)), (answered, body));
        }
        assert_eq!(text(&client.get("/205")), "");
    });
}

#[test]
fn a_file_is_sent_with_ranges_conditions_and_type() {
    let folder = std::env::temp_dir().join(format!("theframework-face-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let content: Vec<u8> = (0..300_000_u32)
        .map(|number| b'a' + (number % 26) as u8)
        .collect();
    std::fs::write(folder.join("letters.txt"), &content).unwrap();
    let files = folder.clone();
    let make = || {
        let files = files.clone();
        App::new().get(
            "/{name}",
            move |request: &mut Request, response: &mut Response| {
                response.send_file(files.join(&*request.param("name").unwrap()))
            },
        )
    };
    on_all(make, |client| {
        let whole = client.get("/letters.txt");
        assert_eq!(
            (whole.status().as_u16(), whole.body().len()),
            (200, content.len())
        );
        assert!(whole.body() == &content[..]);
        assert_eq!(field(&whole, "content-type"), "text/plain");
        assert_eq!(field(&whole, "accept-ranges"), "bytes");
        let tag = field(&whole, "etag").to_owned();
        let request = HttpRequest::get("/letters.txt").header("Range", "bytes=26-51");
        let part = client.send(request.body("").unwrap());
        assert_eq!(
            (part.status().as_u16(), &part.body()[..]),
            (206, &content[26..52])
        );
        assert_eq!(field(&part, "content-range"), "bytes 26-51/300000");
        let request = HttpRequest::get("/letters.txt").header("If-None-Match", tag);
        let same = client.send(request.body("").unwrap());
        assert_eq!((same.status().as_u16(), text(&same)), (304, ""));
        assert_eq!(client.get("/none.txt").status(), 404);
        assert_eq!(client.get("/.").status(), 404);
    });
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_response_can_be_looked_at_and_changed_on_its_way_back() {
    let shout = |request: &mut Request<'_>, response: &mut Response<'_>, next: Next<'_>| {
        next.run(request, response);
        let loud = String::from_utf8_lossy(response.body()).to_uppercase();
        response.set_header("X-Status", response.status().as_str())?;
        response.set_body(loud);
        Ok(())
    };
    let make = || {
        App::new()
            .middleware(shout)
            .get("/", |_: &mut Request, response: &mut Response| {
                response
                    .set_status(StatusCode::ACCEPTED)
                    .set_header("X-Here", "1")?;
                response.text("softly");
                Ok(())
            })
    };
    on_all(make, |client| {
        let answer = client.get("/");
        assert_eq!(
            (text(&answer), field(&answer, "x-status")),
            ("SOFTLY", "202")
        );
        assert_eq!(field(&answer, "content-length"), "6");
    });
}
