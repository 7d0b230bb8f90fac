//! `edge-classify serve`: the program itself, spoken to over real connections.

#[cfg(feature = "serve")]
mod ends;
#[cfg(feature = "serve")]
mod hostile;
#[cfg(feature = "serve")]
mod limits;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "serve")]
mod results;
#[cfg(feature = "serve")]
mod routes;
#[cfg(feature = "serve")]
mod secrets;
#[cfg(feature = "serve")]
mod service;
#[cfg(feature = "serve")]
mod swap;

#[cfg(feature = "serve")]
#[path = "../cli/corner.rs"]
mod corner;

/// A build without it says what to build.
#[cfg(not(feature = "serve"))]
#[test]
fn a_build_without_it_says_so() {
    for args in [&["serve"][..], &["serve", "--listen", "127.0.0.1:0", "--help"]] {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = ["edge-classify"].iter().chain(args);
        assert_eq!(edge_classify::run(args, &mut out, &mut err), edge_classify::EXIT_ERROR);
        let err = String::from_utf8(err).unwrap();
        assert!(err.contains("--features serve"), "{err}");
    }
}
