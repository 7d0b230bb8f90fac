//! A build without MPI does not take itself for one of several processes.
#![cfg(not(feature = "mpi"))]

use std::process::Command;

#[test]
fn one_of_several_processes_says_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    for launcher in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command.args(["train", "--data", "pictures"]).current_dir(&dir);
        let several = command.env(launcher, "2").output().unwrap();
        let said = String::from_utf8_lossy(&several.stderr);
        assert_eq!(several.status.code(), Some(2), "{said}");
        assert!(said.contains("one of 2 processes") && said.contains("--features mpi"), "{said}");
        let one = command.env(launcher, "1").output().unwrap();
        let said = String::from_utf8_lossy(&one.stderr);
        assert!(said.contains("pictures: No such file"), "{said}");
    }
}
