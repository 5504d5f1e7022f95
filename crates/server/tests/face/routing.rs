//! Routes, groups, middleware, state, errors.

use std::sync::atomic::{AtomicUsize, Ordering};

use theframework::http::Request as HttpRequest;
use theframework::{
    App, Error, LiveClient, Next, Request, Response, RouteError, StartError, StatusCode,
};

use crate::{Client, field, fields, on_all, say, serve, stop, text};

fn param(name: &'static str) -> impl Fn(&mut Request<'_>, &mut Response<'_>) {
    move |request, response| response.text(request.param(name).unwrap_or_default())
}

#[test]
fn each_method_and_pattern_leads_to_its_handler() {
    let make = || {
        App::new()
            .get("/", say("root"))
            .get("/users/{id}", param("id"))
            .get("/users/me", say("me"))
            .get("/files/{*rest}", param("rest"))
            .post("/things", say("post"))
            .put("/things", say("put"))
            .patch("/things", say("patch"))
            .delete("/things", say("delete"))
            .options("/things", say("options"))
            .head("/things", say("head"))
            .any("/any", |request: &mut Request, response: &mut Response| {
                response.text(request.method().as_str());
            })
            .route("BREW", "/pot", say("coffee"))
    };
    on_all(make, |client| {
        for (target, body) in [
            ("/", "root"),
            ("/users/7", "7"),
            ("/users/me", "me"),
            ("/users/a%20b", "a b"),
            ("/users/a%2Fb", "a/b"),
            ("/users/100%25", "100%"),
            ("/files/a/b.css", "a/b.css"),
            ("/any?x", "GET"),
        ] {
            let answer = client.get(target);
            assert_eq!(
                (answer.status().as_u16(), text(&answer)),
                (200, body),
                "{target}"
            );
        }
        for (method, target, body) in [
            ("POST", "/things", "post"),
            ("PUT", "/things", "put"),
            ("PATCH", "/things", "patch"),
            ("DELETE", "/things", "delete"),
            ("OPTIONS", "/things", "options"),
            ("POST", "/any", "POST"),
            ("PUT", "/any", "PUT"),
            ("PATCH", "/any", "PATCH"),
            ("DELETE", "/any", "DELETE"),
            ("OPTIONS", "/any", "OPTIONS"),
            ("BREW", "/pot", "coffee"),
        ] {
            let request = HttpRequest::builder().method(method).uri(target);
            let answer = client.send(request.body("").unwrap());
            assert_eq!(
                (answer.status().as_u16(), text(&answer)),
                (200, body),
                "{method}"
            );
        }
        let answer = client.send(HttpRequest::head("/any").body("").unwrap());
        assert_eq!((answer.status(), text(&answer)), (StatusCode::OK, ""));
        assert_eq!(field(&answer, "content-length"), "4");
    });
}

#[test]
fn what_has_no_route_is_404_and_what_has_no_method_405_with_those_it_has() {
    let make = || App::new().get("/a", say("a")).post("/a", say("b"));
    on_all(make, |client| {
        let answer = client.get("/b");
        assert_eq!(answer.status(), 404);
        assert_eq!(text(&answer), "404 Not Found\n");
        let answer = client.send(HttpRequest::delete("/a").body("").unwrap());
        assert_eq!(answer.status(), 405);
        assert_eq!(field(&answer, "allow"), "GET, HEAD, POST");
        assert_eq!(text(&answer), "405 Method Not Allowed\n");
    });
    let make = || {
        App::new()
            .get("/a", say("a"))
            .not_found(|request: &mut Request, response: &mut Response| {
                response.set_status(StatusCode::NOT_FOUND);
                response.html(format!("<h1>no {}</h1>", request.path()));
            })
            .method_not_allowed(|_: &mut Request, response: &mut Response| {
                response.set_status(StatusCode::METHOD_NOT_ALLOWED);
                response.text("try another");
            })
    };
    on_all(make, |client| {
        let answer = client.get("/b%20c");
        assert_eq!(
            (answer.status().as_u16(), text(&answer)),
            (404, "<h1>no /b c</h1>")
        );
        let answer = client.post("/a", "text/plain", "x");
        assert_eq!(
            (answer.status().as_u16(), text(&answer)),
            (405, "try another")
        );
        assert_eq!(field(&answer, "allow"), "GET, HEAD");
    });
}

/// Leaves a mark before and after.
fn mark(
    name: &'static str,
) -> impl Fn(&mut Request<'_>, &mut Response<'_>, Next<'_>) -> theframework::Result {
    move |request, response, next| {
        response.append_header("X-Way", format!("to {name}"))?;
        next.run(request, response);
        response.append_header("X-Way", format!("from {name}"))?;
        Ok(())
    }
}

#[test]
fn middleware_goes_around_what_is_behind_it_and_a_groups_around_its_routes_alone() {
    let make = || {
        App::new()
            .middleware(mark("app"))
            .get("/plain", say("plain"))
            .group("/api/", |group| {
                group
                    .middleware(mark("api"))
                    .get("/status", say("status"))
                    .group("/v1", |group| {
                        group.middleware(mark("v1")).get("/x/{id}", param("id"))
                    })
            })
    };
    on_all(make, |client| {
        let way = |client: &mut Client, target: &str| {
            let answer = client.get(target);
            (
                answer.status().as_u16(),
                fields(&answer, "x-way").join(", "),
            )
        };
        assert_eq!(way(client, "/plain"), (200, "to app, from app".into()));
        assert_eq!(
            way(client, "/api/status"),
            (200, "to app, to api, from api, from app".into())
        );
        assert_eq!(
            way(client, "/api/v1/x/7"),
            (
                200,
                "to app, to api, to v1, from v1, from api, from app".into()
            )
        );
        // An application's own runs for what no route has, too.
        assert_eq!(way(client, "/api/none"), (404, "to app, from app".into()));
    });
}

#[test]
fn middleware_may_answer_by_itself_and_leave_something_for_those_behind() {
    #[derive(Clone)]
    struct User(String);
    let make = || {
        App::new()
            .middleware(
                |request: &mut Request, response: &mut Response, next: Next| {
                    let Some(name) = request.header("x-user") else {
                        response.set_status(StatusCode::UNAUTHORIZED);
                        response.text("who are you?");
                        return Ok(());
                    };
                    request.extensions_mut().insert(User(name.to_owned()));
                    next.run(request, response);
                    Ok(())
                },
            )
            .get("/", |request: &mut Request, response: &mut Response| {
                let User(name) = request.extensions().get::<User>().unwrap();
                response.text(format!("hello, {name}"));
            })
    };
    on_all(make, |client| {
        let answer = client.get("/");
        assert_eq!(
            (answer.status().as_u16(), text(&answer)),
            (401, "who are you?")
        );
        let request = HttpRequest::get("/").header("X-User", "Ann");
        let answer = client.send(request.body("").unwrap());
        assert_eq!(
            (answer.status().as_u16(), text(&answer)),
            (200, "hello, Ann")
        );
    });
}

#[test]
fn state_is_one_value_of_each_type_for_all_loops() {
    let app = App::new()
        .state(AtomicUsize::new(10))
        .state("a word".to_owned())
        .workers(2)
        .get("/", |request: &mut Request, response: &mut Response| {
            let count = request
                .state::<AtomicUsize>()
                .fetch_add(1, Ordering::SeqCst);
            response.text(format!("{} {count}", request.state::<String>()));
        })
        .get("/none", |request: &mut Request, response: &mut Response| {
            response.text(request.state::<u8>().to_string());
        });
    for driver in crate::DRIVERS {
        let before = text(&app.test(HttpRequest::get("/").body("").unwrap()).unwrap()).to_owned();
        assert!(before.starts_with("a word "), "{before}");
        let answer = app
            .test(HttpRequest::get("/none").body("").unwrap())
            .unwrap();
        assert_eq!(answer.status(), 500);
        let _ = driver;
    }
    let server = serve(app, crate::DRIVERS[0]);
    let counts: Vec<usize> = (0..8)
        .map(|_| {
            let mut client = LiveClient::connect(&server.addresses()[0]).unwrap();
            let answer = client
                .send(HttpRequest::get("/").body("").unwrap())
                .unwrap();
            text(&answer).rsplit(' ').next().unwrap().parse().unwrap()
        })
        .collect();
    assert_eq!(counts, (12..20).collect::<Vec<_>>());
    stop(server);
}

fn failing(_: &mut Request<'_>, response: &mut Response<'_>) -> theframework::Result {
    response.set_header("X-Half", "done")?;
    response.text("half of it");
    Err(Error::new(StatusCode::CONFLICT, "somebody was faster"))
}

#[test]
fn an_error_or_a_panic_is_answered_and_the_server_goes_on() {
    let make = || {
        App::new()
            .get("/fails", failing)
            .get("/breaks", |_: &mut Request, _: &mut Response| {
                std::fs::read("/no/such/file")?;
                Ok(())
            })
            .get("/panics", |_: &mut Request, response: &mut Response| {
                response.text("about to");
                assert!(response.body().is_empty(), "a handler that panics");
            })
            .get("/", say("fine"))
    };
    on_all(make, |client| {
        let answer = client.get("/fails");
        assert_eq!(
            (
                answer.status().as_u16(),
                text(&answer),
                field(&answer, "x-half")
            ),
            (409, "somebody was faster\n", "done")
        );
        // What went wrong inside is nobody's business outside.
        for target in ["/breaks", "/panics"] {
            let answer = client.get(target);
            assert_eq!(
                (answer.status().as_u16(), text(&answer)),
                (500, "500 Internal Server Error\n")
            );
        }
        assert_eq!(text(&client.get("/")), "fine");
    });
    let make = || {
        App::new()
            .get("/fails", failing)
            .get(
                "/worse",
                |_: &mut Request, _: &mut Response| -> theframework::Result {
                    Err(Error::new(StatusCode::IM_A_TEAPOT, "worse"))
                },
            )
            .on_error(
                |request: &mut Request, error: &Error, response: &mut Response| {
                    assert_ne!(error.message(), "worse", "an error handler that panics");
                    response.set_header("X-Target", request.target())?;
                    response.json(&[error.message()])
                },
            )
    };
    on_all(make, |client| {
        let answer = client.get("/fails");
        assert_eq!(
            (
                answer.status().as_u16(),
                text(&answer),
                field(&answer, "x-target")
            ),
            (409, "[\"somebody was faster\"]", "/fails")
        );
        assert_eq!(client.get("/worse").status(), 500);
    });
}

#[test]
fn a_route_that_cannot_be_is_refused_when_the_server_is_bound() {
    for (app, duplicate) in [
        (App::new().get("no-slash", say("")), false),
        (App::new().get("/{a}{b}", say("")), false),
        (App::new().route("GE T", "/", say("")), false),
        (App::new().route("CONNECT", "/", say("")), false),
        (App::new().get("/a", say("")).get("/a", say("")), true),
    ] {
        match app.bind("127.0.0.1:0").unwrap_err() {
            StartError::Route(RouteError::DuplicateMethod(_)) => assert!(duplicate),
            StartError::Route(_) => assert!(!duplicate),
            other => panic!("{other}"),
        }
    }
}
