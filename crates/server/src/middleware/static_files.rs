//! The files of a folder, below a route that ends with a `{*rest}`.
//!
//! What a client may name is decided by [`safe_path`], on the decoded path, before the file system sees it; then,
//! unless links may lead out, by where the file really is. Between that look and the opening, somebody who may
//! write in the folder could exchange a file for a link: serve no folder that strangers write in. The look-up
//! is made on the loop: a few system calls, which wait for the disk if the way to the file is not in memory.
//! There are no lists of folders, and nothing is compressed.

use std::io;
use std::path::{Path, PathBuf};

use http::StatusCode;

use super::set_missing;
use crate::{Error, Request, Response, Result};

/// Sends the files below a folder, with what [`Response::send_file`] does for each: types, ranges, conditions.
/// A folder is answered with its `index.html`, behind a redirect to its name with a slash.
///
/// ```no_run
/// use theframework::App;
/// use theframework::middleware::StaticFiles;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let files = StaticFiles::new("public")?.cache_control("public, max-age=3600");
/// let app = App::new()
///     .get("/static/", files.clone().build()) // the folder's own index.html
///     .get("/static/{*rest}", files.build());
/// # drop(app);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct StaticFiles {
    /// Without links in it.
    folder: PathBuf,
    parameter: String,
    cache_control: Option<String>,
    shows_dot_files: bool,
    follows_links_out: bool,
}

impl StaticFiles {
    /// The files below that folder, which must be there.
    ///
    /// # Errors
    /// The system's, if it is not there, or no folder.
    pub fn new(folder: impl AsRef<Path>) -> io::Result<Self> {
        let folder = folder.as_ref().canonicalize()?;
        if !folder.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(StaticFiles {
            folder,
            parameter: "rest".to_owned(),
            cache_control: None,
            shows_dot_files: false,
            follows_links_out: false,
        })
    }

    /// The route's parameter that names the file; `rest` otherwise. Without it, a request is for the folder
    /// itself.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>) -> Self {
        self.parameter = name.into();
        self
    }

    /// The `Cache-Control` of each file.
    #[must_use]
    pub fn cache_control(mut self, value: impl Into<String>) -> Self {
        self.cache_control = Some(value.into());
        self
    }

    /// Files and folders whose names begin with a dot are served too.
    #[must_use]
    pub fn dot_files(mut self) -> Self {
        self.shows_dot_files = true;
        self
    }

    /// Symbolic links may lead out of the folder.
    #[must_use]
    pub fn follow_links_out(mut self) -> Self {
        self.follows_links_out = true;
        self
    }

    /// The handler.
    pub fn build(
        self,
    ) -> impl Fn(&mut Request<'_>, &mut Response<'_>) -> Result + Send + Sync + 'static {
        move |request, response| self.serve(request, response)
    }

    fn serve(&self, request: &mut Request<'_>, response: &mut Response<'_>) -> Result {
        let rest = request.param(&self.parameter).unwrap_or_default();
        let (name, names_folder) = match rest.strip_suffix('/') {
            Some(name) => (name, true),
            None => (&*rest, rest.is_empty()),
        };
        let below = safe_path(name, self.shows_dot_files).ok_or_else(not_found)?;
        let mut path = self.folder.join(below);
        let is_folder = std::fs::metadata(&path).map_err(refused)?.is_dir();
        if is_folder && !names_folder {
            self.find(&path)?;
            return redirect(request, response);
        }
        if !is_folder && names_folder {
            return Err(not_found());
        }
        if is_folder {
            path.push("index.html");
        }
        response.send_file(self.find(&path)?).map_err(|error| {
            // A folder of that name, or something else that is no file.
            let status = error.status();
            Error::because(status, "", error.to_string())
        })?;
        if let Some(value) = &self.cache_control {
            set_missing(response, "Cache-Control", value)?;
        }
        Ok(())
    }

    /// Where that really is, if it may be served.
    fn find(&self, path: &Path) -> Result<PathBuf> {
        if self.follows_links_out {
            return Ok(path.to_owned());
        }
        let path = path.canonicalize().map_err(refused)?;
        if path.starts_with(&self.folder) {
            Ok(path)
        } else {
            Err(not_found())
        }
    }
}

/// To the same name with a slash. Relative to where the client is, so that it leads to no other host, whatever was
/// asked for, and is right behind a proxy that serves this elsewhere.
fn redirect(request: &Request<'_>, response: &mut Response<'_>) -> Result {
    let last = request.raw_path().rsplit('/').next().unwrap_or_default();
    let mut location = format!("./{last}/");
    if !request.query().is_empty() {
        location.push('?');
        location.push_str(request.query());
    }
    response.set_status(StatusCode::PERMANENT_REDIRECT);
    response.redirect(location)?;
    Ok(())
}

fn not_found() -> Error {
    Error::new(StatusCode::NOT_FOUND, "")
}

fn refused(error: io::Error) -> Error {
    let status = match error.kind() {
        io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            StatusCode::NOT_FOUND
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Error::because(status, "", error)
}

/// A decoded path of a URL as a relative path of the file system, if it is safe: below wherever it is joined to,
/// as long as no link leads out. An empty one is the folder itself.
///
/// Not safe are: parts that are empty (an absolute path begins with one), `.` or `..`; parts that begin with a dot,
/// unless `allows_dot_files`; NUL and other control characters, and backslashes.
///
/// ```
/// use theframework::middleware::safe_path;
///
/// assert_eq!(safe_path("css/site.css", false).unwrap(), std::path::Path::new("css/site.css"));
/// assert!(safe_path("../secret", false).is_none());
/// assert!(safe_path("/etc/passwd", false).is_none());
/// ```
pub fn safe_path(path: &str, allows_dot_files: bool) -> Option<PathBuf> {
    let mut safe = PathBuf::new();
    if path.is_empty() {
        return Some(safe);
    }
    if path.contains(|letter: char| letter.is_control() || letter == '\\') {
        return None;
    }
    for part in path.split('/') {
        let is_hidden = part.starts_with('.') && !allows_dot_files;
        if part.is_empty() || part == "." || part == ".." || is_hidden {
            return None;
        }
        safe.push(part);
    }
    Some(safe)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::text_of;
    use super::*;
    use crate::{App, Bytes};
    use proptest::prelude::*;

    /// A folder of its own, gone with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let name = format!("static-files-{:016x}", fastrand::u64(..));
            let folder = Folder(std::env::temp_dir().join(name));
            let public = folder.public();
            fs::create_dir_all(public.join("sub/deep")).unwrap();
            fs::create_dir_all(public.join("empty")).unwrap();
            fs::write(folder.0.join("secret.txt"), "secret").unwrap();
            fs::write(public.join("index.html"), "top").unwrap();
            fs::write(public.join("a b.txt"), "spaced").unwrap();
            fs::write(public.join("sub/index.html"), "sub").unwrap();
            fs::write(public.join("sub/deep/style.css"), "p {}").unwrap();
            fs::write(public.join(".hidden"), "hidden").unwrap();
            symlink("../secret.txt", public.join("out")).unwrap();
            symlink("..", public.join("up")).unwrap();
            symlink("sub/deep/style.css", public.join("in.css")).unwrap();
            folder
        }

        fn public(&self) -> PathBuf {
            self.0.join("public")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn app(files: StaticFiles) -> App {
        App::new()
            .get("/f/", files.clone().build())
            .get("/f/{*rest}", files.build())
    }

    fn get(app: &App, path: &str) -> http::Response<Bytes> {
        app.test(http::Request::get(path).body("").unwrap())
            .unwrap()
    }

    #[test]
    fn files_are_sent_with_type_validators_and_ranges() {
        let folder = Folder::new();
        let files = StaticFiles::new(folder.public()).unwrap();
        let app = app(files.cache_control("max-age=60"));
        let answer = get(&app, "/f/sub/deep/style.css");
        assert_eq!(
            (answer.status().as_u16(), &answer.body()[..]),
            (200, &b"p {}"[..])
        );
        assert_eq!(text_of(&answer, "content-type"), "text/css");
        assert_eq!(text_of(&answer, "cache-control"), "max-age=60");
        let tag = text_of(&answer, "etag");
        let request = http::Request::get("/f/sub/deep/style.css").header("If-None-Match", tag);
        assert_eq!(app.test(request.body("").unwrap()).unwrap().status(), 304);
        let request = http::Request::get("/f/sub/deep/style.css").header("Range", "bytes=0-0");
        assert_eq!(app.test(request.body("").unwrap()).unwrap().body(), "p");
        assert_eq!(get(&app, "/f/a%20b.txt").body(), "spaced");
        assert_eq!(get(&app, "/f/in.css").body(), "p {}");
    }

    #[test]
    fn a_folder_is_its_index_behind_a_slash() {
        let folder = Folder::new();
        let app = app(StaticFiles::new(folder.public()).unwrap());
        assert_eq!(get(&app, "/f/").body(), "top");
        assert_eq!(get(&app, "/f/sub/").body(), "sub");
        let answer = get(&app, "/f/sub?a=b");
        assert_eq!(answer.status(), 308);
        assert_eq!(text_of(&answer, "location"), "./sub/?a=b");
        for none in ["/f/empty/", "/f/sub/deep/", "/f/index.html/", "/f/none"] {
            let answer = get(&app, none);
            assert_eq!(answer.status(), 404, "{none}");
            assert_eq!(answer.body(), "404 Not Found\n");
        }
    }

    #[test]
    fn nothing_outside_is_sent() {
        let folder = Folder::new();
        let app = app(StaticFiles::new(folder.public()).unwrap());
        for path in [
            "/f/../secret.txt",
            "/f/%2e%2e/secret.txt",
            "/f/..%2fsecret.txt",
            "/f/sub/%2e%2e/%2e%2e/secret.txt",
            "/f/%252e%252e/secret.txt",
            "/f//etc/passwd",
            "/f/%2fetc/passwd",
            "/f/sub//index.html",
            "/f/sub/./index.html",
            "/f/..%5csecret.txt",
            "/f/index.html%00",
            "/f/.hidden",
            "/f/%2ehidden",
            "/f/out",
            "/f/up",
            "/f/up/",
            "/f/up/secret.txt",
        ] {
            let answer = get(&app, path);
            assert!(
                matches!(answer.status().as_u16(), 400 | 404),
                "{path}: {answer:?}"
            );
        }
    }

    #[test]
    fn dot_files_and_links_that_lead_out_are_sent_if_allowed() {
        let folder = Folder::new();
        let files = StaticFiles::new(folder.public()).unwrap();
        let app = app(files.dot_files().follow_links_out());
        assert_eq!(get(&app, "/f/.hidden").body(), "hidden");
        assert_eq!(get(&app, "/f/out").body(), "secret");
        assert_eq!(get(&app, "/f/up/secret.txt").body(), "secret");
        assert_eq!(get(&app, "/f/..%2fsecret.txt").status(), 404);
    }

    #[test]
    fn a_folder_must_be_there() {
        assert!(StaticFiles::new("/nowhere/at/all").is_err());
        assert!(StaticFiles::new("/dev/null").is_err());
    }

    proptest! {
        #[test]
        fn a_safe_path_stays_below(path in "[./a\\\\\u{0}\n]{0,12}", dots in any::<bool>()) {
            if let Some(safe) = safe_path(&path, dots) {
                let all_normal = safe.components().all(|part| matches!(part, std::path::Component::Normal(_)));
                prop_assert!(all_normal && safe.to_str() == Some(&path), "{path:?} {safe:?}");
            }
        }
    }
}
