//! What a handler can ask of a request.

use serde::Deserialize;
use theframework::http::Request as HttpRequest;
use theframework::{App, Config, HeaderMap, LiveClient, Request, Response, Version};

use crate::{Client, DRIVERS, connect, on_all, read_until, serve, stop, text, write};

/// An application that answers with what `tell` makes of a request, for GET and POST.
fn telling(tell: fn(&Request) -> String) -> App {
    let answer = move |request: &mut Request<'_>, response: &mut Response<'_>| {
        response.text(tell(request));
    };
    App::new().any("/", answer).any("/{*rest}", answer)
}

#[test]
fn target_path_and_query_are_as_received_and_decoded() {
    let make = || {
        telling(|request| {
            format!(
                "{} {} {} {} {:?} {:?} {:?} {}",
                request.target(),
                request.path(),
                request.raw_path(),
                request.query(),
                request.query_value("b"),
                request.query_value("none"),
                request.query_pairs().collect::<Vec<_>>(),
                request.params().count(),
            )
        })
    };
    on_all(make, |client| {
        let answer = client.get("/a%20b/%2Fc?a=1&b=x+y%26&b=z&d");
        assert_eq!(
            text(&answer),
            "/a%20b/%2Fc?a=1&b=x+y%26&b=z&d /a b//c /a%20b/%2Fc a=1&b=x+y%26&b=z&d \
             Some(\"x y&\") None [(\"a\", \"1\"), (\"b\", \"x y&\"), (\"b\", \"z\"), (\"d\", \"\")] 1"
        );
    });
}

#[test]
fn fields_are_found_in_any_case_and_all_of_them() {
    let make = || {
        telling(|request| {
            let values: Vec<_> = request
                .header_values("x-MANY")
                .map(String::from_utf8_lossy)
                .collect();
            let names: Vec<_> = request.headers().map(|(name, _)| name).collect();
            format!(
                "{:?} {:?} {values:?} {}",
                request.header("X-Many"),
                request.header("x-none"),
                names.join(","),
            )
        })
    };
    on_all(make, |client| {
        let request = HttpRequest::get("/")
            .header("x-many", "one")
            .header("X_Many", "hidden")
            .header("X-Many", "two");
        let answer = client.send(request.body("").unwrap());
        // Those whose names a gateway could take for others are not shown.
        let told = text(&answer).to_ascii_lowercase();
        assert!(
            told.starts_with("some(\"one\") none [\"one\", \"two\"] "),
            "{told}"
        );
        assert!(!told.contains("x_many"), "{told}");
    });
    let config = Config {
        header_map: HeaderMap::Dangerous,
        ..Config::default()
    };
    let app = telling(|request| format!("{:?}", request.header("x_many"))).config(config);
    let request = HttpRequest::get("/").header("X_Many", "shown");
    let answer = app.test(request.body("").unwrap()).unwrap();
    assert_eq!(text(&answer), "Some(\"shown\")");
}

#[test]
fn cookies_are_read_one_by_one() {
    let make = || {
        telling(|request| {
            format!(
                "{:?} {:?} {:?}",
                request.cookie("b"),
                request.cookie("none"),
                request.cookies().collect::<Vec<_>>()
            )
        })
    };
    on_all(make, |client| {
        let request = HttpRequest::get("/")
            .header("Cookie", "a=1; b=\"two\";c; d=x=y")
            .header("Cookie", "e=5");
        let answer = client.send(request.body("").unwrap());
        assert_eq!(
            text(&answer),
            "Some(\"two\") None [(\"a\", \"1\"), (\"b\", \"two\"), (\"d\", \"x=y\"), (\"e\", \"5\")]"
        );
    });
}

#[derive(Deserialize)]
struct Thing<'a> {
    name: &'a str,
    count: u32,
}

#[derive(Deserialize)]
struct Page {
    page: u32,
}

#[test]
fn bodies_and_queries_are_read_as_types() {
    let make = || {
        App::new()
            .post("/json", |request: &mut Request, response: &mut Response| {
                let thing: Thing = request.json()?;
                response.text(format!("{} of {}", thing.count, thing.name));
                Ok(())
            })
            .post("/form", |request: &mut Request, response: &mut Response| {
                let page: Page = request.form()?;
                response.text(page.page.to_string());
                Ok(())
            })
            .post("/text", |request: &mut Request, response: &mut Response| {
                response.text(request.text()?);
                Ok(())
            })
            .get(
                "/query",
                |request: &mut Request, response: &mut Response| {
                    let page: Page = request.query_as()?;
                    response.text(page.page.to_string());
                    Ok(())
                },
            )
            .get(
                "/n/{n}",
                |request: &mut Request, response: &mut Response| {
                    let number: u8 = request.param_as("n")?;
                    response.text(number.to_string());
                    Ok(())
                },
            )
    };
    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";
    on_all(make, |client| {
        let told = |client: &mut Client, target: &str, media: &str, body: &'static str| {
            let answer = client.post(target, media, body);
            (answer.status().as_u16(), text(&answer).to_owned())
        };
        let thing = "{\"name\": \"eggs\", \"count\": 12}";
        let fine = (200, "12 of eggs".to_owned());
        assert_eq!(told(client, "/json", JSON, thing), fine);
        assert_eq!(
            told(client, "/json", "application/json; charset=utf-8", thing),
            fine
        );
        assert_eq!(told(client, "/json", "application/vnd.x+json", thing), fine);
        assert_eq!(told(client, "/json", "text/plain", thing).0, 415);
        let (status, why) = told(client, "/json", JSON, "{\"name\": \"eggs\"}");
        assert_eq!(status, 400);
        assert!(why.contains("missing field `count`"), "{why}");
        assert_eq!(told(client, "/form", FORM, "page=7&x=y"), (200, "7".into()));
        assert_eq!(told(client, "/form", FORM, "page=seven").0, 400);
        assert_eq!(told(client, "/form", JSON, "page=7").0, 415);
        assert_eq!(
            told(client, "/text", "text/plain", "grün"),
            (200, "grün".into())
        );
        let invalid = HttpRequest::post("/text").body(&b"\xff\xfe"[..]).unwrap();
        assert_eq!(client.send(invalid).status(), 400);
        assert_eq!(text(&client.get("/query?page=3")), "3");
        assert_eq!(client.get("/query?page=x").status(), 400);
        assert_eq!(text(&client.get("/n/255")), "255");
        assert_eq!(client.get("/n/256").status(), 404);
    });
}

#[test]
fn a_body_is_whole_however_it_came() {
    let make = || telling(|request| format!("{}", request.body().len()));
    on_all(make, |client| {
        for len in [0, 1, 4000, 20_000, 300_000, 1_048_576] {
            let request = HttpRequest::post("/").body(vec![b'x'; len]).unwrap();
            assert_eq!(text(&client.send(request)), len.to_string());
        }
    });
    for driver in DRIVERS {
        let server = serve(make(), driver);
        let mut stream = connect(&server);
        write(
            &mut stream,
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        write(&mut stream, "3\r\nabc\r\n");
        write(&mut stream, "2\r\nde\r\n0\r\n\r\n");
        let answer = read_until(&mut stream, "\r\n\r\n5");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        stop(server);
    }
    let request = HttpRequest::post("/").body(vec![b'x'; 1_048_577]).unwrap();
    assert_eq!(make().test(request).unwrap().status(), 413);
}

#[test]
fn who_asks_is_the_peer_or_whom_a_trusted_proxy_names() {
    let tell = |request: &Request| {
        let client = request.client().map(|hop| hop.to_string());
        format!("{client:?} {}", request.scheme().as_str())
    };
    for driver in DRIVERS {
        let server = serve(telling(tell), driver);
        let mut client = LiveClient::connect(&server.addresses()[0]).unwrap();
        let answer = client
            .send(HttpRequest::get("/").body("").unwrap())
            .unwrap();
        assert!(text(&answer).starts_with("Some(\"127.0.0.1:"), "{answer:?}");
        assert!(text(&answer).ends_with(" http"));
        let request = HttpRequest::get("/")
            .header("X-Forwarded-For", "203.0.113.9")
            .header("X-Forwarded-Proto", "https");
        let answer = client.send(request.body("").unwrap()).unwrap();
        assert_eq!(text(&answer), "Some(\"203.0.113.9\") https");
        stop(server);
    }
}

#[test]
fn a_representation_is_chosen_by_what_the_client_accepts() {
    let make = || {
        telling(|request| {
            let chosen = request.accepts(&["application/json", "text/html"]);
            format!("{chosen:?}")
        })
    };
    on_all(make, |client| {
        for (accept, chosen) in [
            ("text/html, */*;q=0.1", "Some(\"text/html\")"),
            ("image/png", "None"),
            ("*/*", "Some(\"application/json\")"),
        ] {
            let request = HttpRequest::get("/").header("Accept", accept);
            assert_eq!(
                text(&client.send(request.body("").unwrap())),
                chosen,
                "{accept}"
            );
        }
    });
}

#[test]
fn the_version_is_that_of_the_request() {
    let app = telling(|request| format!("{}", request.version() == Version::HTTP_10));
    let mut client = theframework::TestClient::new(&app).unwrap();
    let answer = client.send_bytes(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(text(&answer), "true");
    let answer = client
        .send_bytes(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    assert_eq!(text(&answer), "false");
    // What is no request is refused here as everywhere.
    let answer = client.send_bytes(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(answer.status(), 400);
}
