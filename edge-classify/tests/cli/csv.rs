//! Tables for spreadsheets.

use crate::{Bench, GREEN, encode};
use edge_classify::{EXIT_ANSWER, EXIT_ERROR};
use image::{ImageFormat, RgbImage};

#[test]
fn a_table_has_a_row_for_each_picture_and_nothing_that_computes() {
    let bench = Bench::new();
    let green = encode(RgbImage::from_pixel(2, 2, GREEN), ImageFormat::Png);
    for name in ["=cmd|' !A1.png", "a \"b\",c.png", "plain.png"] {
        bench.put(name, &green);
    }
    bench.put("z.png", "no picture");
    let folder = bench.path("");
    let folder = folder.to_str().unwrap();
    let o = bench.run(&["--csv", "--quiet", "--top", "2", "@/"]);
    assert_eq!(o.code, EXIT_ERROR);
    let rows: Vec<&str> = o.out.split_terminator("\r\n").collect();
    assert_eq!(rows[0], "file,label,probability,label2,probability2,error");
    assert_eq!(rows.len(), 5, "{}", o.out);
    let starts = [
        format!("\"{folder}=cmd|' !A1.png\",\"green\",1,\"red\",0."),
        format!("\"{folder}a \"\"b\"\",c.png\",\"green\",1,\"red\",0."),
        format!("\"{folder}plain.png\",\"green\",1,\"red\",0."),
        format!("\"{folder}z.png\",,,,,\""),
    ];
    for (row, start) in rows[1..].iter().zip(&starts) {
        assert!(row.starts_with(start), "{row} for {start}");
    }
    // Quiet is silent about all but what failed.
    assert_eq!(o.err.lines().count(), 1, "{}", o.err);
    assert!(o.err.contains("z.png"), "{}", o.err);
    assert!(bench.run(&["@/"]).err.contains("4 pictures in "));

    let timed = bench.run(&["--csv", "--time", "--top", "1", "@/plain.png"]);
    assert_eq!(timed.code, EXIT_ANSWER);
    let rows: Vec<&str> = timed.out.lines().collect();
    assert_eq!(rows[0], "file,label,probability,decode_ms,preprocess_ms,run_ms,error");
    assert_eq!(rows[1].matches(',').count(), 6, "{}", rows[1]);
    for other in ["--json", "--logits"] {
        assert_eq!(bench.run(&["--csv", other, "@/plain.png"]).code, EXIT_ERROR);
    }
}
