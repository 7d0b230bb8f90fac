//! What a user should know of a data set before relying on it.

use super::Dataset;

/// Skipped files that are named, at most.
const MAX_NAMED: usize = 10;

/// How large it is.
pub(crate) fn extent(data: &Dataset) -> String {
    format!(
        "{} classes, {} training and {} validation pictures",
        data.labels.len(),
        data.train.len(),
        data.val.len()
    )
}

/// One line each: skipped files, and what makes an accuracy look better or worse than it is.
pub(crate) fn notes(data: &Dataset) -> Vec<String> {
    let skipped = data.skipped.iter().take(MAX_NAMED);
    let mut notes: Vec<_> = skipped.map(|f| format!("skipped {}", f.escape_debug())).collect();
    if !data.skipped.is_empty() {
        notes.push(format!("skipped files: {}", data.skipped.len()));
    }
    for [a, b] in data.case_twins() {
        notes.push(format!(
            "warning: the classes `{a}` and `{b}` differ only in case; if they are one class, \
             put its pictures into one folder"
        ));
    }
    let leaked = data.leaked();
    if leaked > 0 {
        notes.push(format!(
            "warning: {leaked} validation pictures are also training pictures; the accuracy \
             will look better than it is"
        ));
    }
    let contradictions = data.contradictions();
    if contradictions > 0 {
        notes.push(format!("warning: {contradictions} pictures appear under more than one class"));
    }
    notes
}
