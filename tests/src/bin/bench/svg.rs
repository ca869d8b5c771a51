//! Plots without a library: grouped bars for ratios, lines for figures over time.

use std::fmt::Write as _;

use crate::report::Group;

const WIDTH: f64 = 900.0;
const LABEL_WIDTH: f64 = 150.0;
const BAR_HEIGHT: f64 = 16.0;
const PANEL_HEAD: f64 = 34.0;
/// A color for each name, so that a contender keeps its color in every panel.
const COLORS: [&str; 10] = [
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7",
    "#9c755f", "#bab0ac",
];

fn document(height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} \
         {height}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" \
         fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A panel for each group: throughput as a share of the group's first yardstick, with the spread over rounds.
pub(crate) fn bars(groups: &[Group]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for row in groups.iter().flat_map(|group| &group.rows) {
        if !names.contains(&row.contender) {
            names.push(row.contender);
        }
    }
    let mut body = String::new();
    let _infallible = writeln!(
        body,
        "<text x=\"8\" y=\"16\">Bars and first figures: throughput as a share of the yardstick's (dashed), median over the \
         rounds. Lines: the smallest to the largest share.</text><text x=\"8\" y=\"30\">Second figures: the server's \
         processor time per request.</text>"
    );
    let mut y = 40.0;
    for group in groups {
        let Some(yardstick) = group.yardsticks.first() else {
            continue;
        };
        let ratios = || {
            group
                .rows
                .iter()
                .filter_map(|row| row.ratios.first().copied().flatten())
        };
        let most = ratios().map(|ratio| ratio.greatest).fold(1.0, f64::max);
        let scale = (WIDTH - LABEL_WIDTH - 130.0) / most;
        let _infallible = writeln!(
            body,
            "<text x=\"8\" y=\"{}\" font-weight=\"bold\">{}, {}: share of {yardstick}</text>",
            y + 14.0,
            escape(group.title),
            group.transport
        );
        y += PANEL_HEAD - 10.0;
        let rows = ratios().count() as f64;
        let _infallible = writeln!(
            body,
            "<path d=\"M{:.1} {y}v{:.1}\" stroke=\"#999\" stroke-dasharray=\"3 3\"/>",
            LABEL_WIDTH + scale,
            rows * BAR_HEIGHT
        );
        for row in &group.rows {
            let Some(ratio) = row.ratios.first().copied().flatten() else {
                continue;
            };
            let color = names
                .iter()
                .position(|name| *name == row.contender)
                .map_or("gray", |at| COLORS[at % 10]);
            let middle = y + BAR_HEIGHT / 2.0;
            let end = LABEL_WIDTH + ratio.median * scale;
            let (low, high) = (
                LABEL_WIDTH + ratio.least * scale,
                LABEL_WIDTH + ratio.greatest * scale,
            );
            let processor = row
                .processor_us_per_request
                .map_or_else(String::new, |figure| format!(", {figure:.1} us"));
            let _infallible = writeln!(
                body,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LABEL_WIDTH}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" fill=\"{color}\"/>\
                 <path d=\"M{low:.1} {middle}H{high:.1}\" stroke=\"black\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{:.2}{processor}</text>",
                LABEL_WIDTH - 6.0,
                middle + 4.0,
                escape(row.contender),
                y + 1.0,
                end - LABEL_WIDTH,
                BAR_HEIGHT - 2.0,
                end.max(high) + 6.0,
                middle + 4.0,
                ratio.median
            );
            y += BAR_HEIGHT;
        }
        y += 10.0;
    }
    document(y, &body)
}

/// A named line of (x, y) points.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A round distance of at most ten ticks.
fn tick_step(most: f64) -> f64 {
    let decade = 10f64.powf((most / 10.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * decade)
        .find(|step| most / step <= 10.0)
        .unwrap_or(most)
}

/// Lines over a common x axis. The y axis is logarithmic: tails span decades.
pub(crate) fn lines(title: &str, x_title: &str, y_title: &str, lines: &[Line]) -> String {
    const HEIGHT: f64 = 420.0;
    const LEFT: f64 = 70.0;
    const TOP: f64 = 40.0;
    const BOTTOM: f64 = 370.0;
    const RIGHT: f64 = 720.0;
    let points = || lines.iter().flat_map(|line| &line.points);
    let x_most = points()
        .map(|point| point.0)
        .fold(f64::MIN_POSITIVE, f64::max);
    let top = points()
        .map(|point| point.1)
        .fold(1.0, f64::max)
        .log10()
        .ceil()
        .max(1.0);
    let x_of = |x: f64| LEFT + x / x_most * (RIGHT - LEFT);
    let y_of = |y: f64| BOTTOM - y.max(1.0).log10() / top * (BOTTOM - TOP);
    let mut body = String::new();
    let _infallible = writeln!(
        body,
        "<text x=\"8\" y=\"20\" font-weight=\"bold\">{}</text><text x=\"{}\" y=\"{}\" \
         text-anchor=\"middle\">{}</text><text transform=\"translate(16 {}) rotate(-90)\" \
         text-anchor=\"middle\">{}, logarithmic</text>",
        escape(title),
        f64::midpoint(LEFT, RIGHT),
        BOTTOM + 36.0,
        escape(x_title),
        f64::midpoint(TOP, BOTTOM),
        escape(y_title)
    );
    let step = tick_step(x_most);
    let mut tick = 0.0;
    while tick <= x_most * 1.001 {
        let x = x_of(tick);
        let _infallible = writeln!(
            body,
            "<path d=\"M{x:.1} {BOTTOM}v5\" stroke=\"black\"/><text x=\"{x:.1}\" y=\"{}\" \
             text-anchor=\"middle\">{}</text>",
            BOTTOM + 18.0,
            (tick * 100.0).round() / 100.0
        );
        tick += step;
    }
    let mut decade: f64 = 1.0;
    while decade.log10() <= top {
        let y = y_of(decade);
        let _infallible = writeln!(
            body,
            "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{decade}</text>",
            LEFT - 6.0,
            y + 4.0
        );
        decade *= 10.0;
    }
    for (line, color) in lines.iter().zip(COLORS.iter().cycle()) {
        let path: Vec<String> = line
            .points
            .iter()
            .map(|(x, y)| format!("{:.1} {:.1}", x_of(*x), y_of(*y)))
            .collect();
        let _infallible = writeln!(
            body,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>",
            path.join("L")
        );
    }
    for (index, (line, color)) in lines.iter().zip(COLORS.iter().cycle()).enumerate() {
        let y = TOP + 16.0 * index as f64;
        let _infallible = writeln!(
            body,
            "<rect x=\"{}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{color}\"/><text x=\"{}\" y=\"{}\">{}</text>",
            RIGHT + 12.0,
            y,
            RIGHT + 26.0,
            y + 9.0,
            escape(&line.name)
        );
    }
    document(HEIGHT, &body)
}
