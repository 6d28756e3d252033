//! The few shapes that pictures are made of, written as SVG.
//!
//! The rule: whatever text comes in, what goes out is well-formed.
//!
//! Not here: where things stand (`lines`, `bars`).

use std::fmt::Write;

pub(super) const TEXT: &str = "#24292f";
pub(super) const PALE_TEXT: &str = "#57606a";
pub(super) const GRID: &str = "#e4e7eb";
pub(super) const AXIS: &str = "#8c959f";

/// Width of a picture.
pub(super) const WIDTH: f64 = 880.0;
pub(super) const MARGIN: f64 = 24.0;
/// Where what is drawn in starts, right of the numbers and the name of the y axis.
pub(super) const LEFT: f64 = 76.0;
pub(super) const TITLE_SIZE: f64 = 18.0;
pub(super) const TEXT_SIZE: f64 = 13.0;
pub(super) const SMALL_SIZE: f64 = 12.0;

/// Where a text's position is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A document that is being written.
pub(super) struct Svg {
    body: String,
    title: String,
}

impl Svg {
    pub(super) fn new(title: &str) -> Self {
        Self { body: String::new(), title: title.to_owned() }
    }

    /// Writes a tag with what `arguments` say.
    fn tag(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.body.write_fmt(arguments).expect("memory takes all");
        self.body.push('\n');
    }

    pub(super) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str, width: f64) {
        self.tag(format_args!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="{width}"/>"#
        ));
    }

    pub(super) fn dashed_line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
        self.tag(format_args!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="1.2" stroke-dasharray="3 3"/>"#
        ));
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], colour: &str, dashed: bool) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dash = if dashed { r#" stroke-dasharray="6 4""# } else { "" };
        self.tag(format_args!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round" stroke-linecap="round"{dash}/>"#,
            points.join(" ")
        ));
    }

    /// `hollow`: a ring, through which what lies behind is not seen.
    pub(super) fn dot(&mut self, (x, y): (f64, f64), radius: f64, colour: &str, hollow: bool) {
        let (fill, stroke) = if hollow { ("#ffffff", colour) } else { (colour, "none") };
        self.tag(format_args!(
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" fill="{fill}" stroke="{stroke}" stroke-width="1.6"/>"#
        ));
    }

    pub(super) fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
        self.tag(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"/>"#
        ));
    }

    pub(super) fn text(&mut self, (x, y): (f64, f64), text: &str, size: f64, colour: &str, anchor: Anchor) {
        self.write_text((x, y), text, size, colour, anchor, "");
    }

    pub(super) fn bold_text(&mut self, (x, y): (f64, f64), text: &str, size: f64) {
        self.write_text((x, y), text, size, TEXT, Anchor::Start, r#" font-weight="600""#);
    }

    /// Text that is read from below, its middle at the position.
    pub(super) fn upward_text(&mut self, (x, y): (f64, f64), text: &str, size: f64, colour: &str) {
        let turned = format!(r#" transform="rotate(-90 {x:.1} {y:.1})""#);
        self.write_text((x, y), text, size, colour, Anchor::Middle, &turned);
    }

    fn write_text(&mut self, (x, y): (f64, f64), text: &str, size: f64, colour: &str, anchor: Anchor, more: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.tag(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{more}>{}</text>"#,
            escaped(text)
        ));
    }

    /// The document.
    pub(super) fn finish(self, height: f64) -> String {
        let Self { body, title } = self;
        let title = escaped(&title);
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH:.0}" height="{height:.0}" viewBox="0 0 {WIDTH:.0} {height:.0}" role="img" font-family="'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif">
<title>{title}</title>
<rect width="100%" height="100%" rx="6" fill="#ffffff"/>
{body}</svg>
"##
        )
    }
}

/// About how wide a text is: fonts differ, so there is some air in it.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.56
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no place for the others.
            c if c >= ' ' || c == '\t' => out.push(c),
            _ => out.push(' '),
        }
    }
    out
}
