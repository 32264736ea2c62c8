//! A figure beside the goal that the project has set itself.

/// Prints whether `figure` is at most `goal`.
pub(crate) fn at_most(case: &str, what: &str, figure: f64, goal: f64) {
    say(case, what, figure, ("<=", goal), figure <= goal);
}

/// Prints whether `figure` is at least `goal`.
pub(crate) fn at_least(case: &str, what: &str, figure: f64, goal: f64) {
    say(case, what, figure, (">=", goal), figure >= goal);
}

fn say(case: &str, what: &str, figure: f64, (sign, goal): (&str, f64), met: bool) {
    let verdict = if met { "met" } else { "MISSED" };
    println!("GOAL {case} {what} {figure:.3} {sign} {goal} {verdict}");
}
