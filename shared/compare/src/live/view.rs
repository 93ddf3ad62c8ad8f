//! The race as a picture.

use std::time::Instant;

use console::report::bar;
use console::text::clip;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::line::THICK;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, LineGauge, Paragraph, Sparkline};

use super::lane::Lane;
use crate::text::one_line;

/// Columns that a lane needs to stand beside another one, and rows to have text in it.
const COLUMNS: u16 = 38;
const ROWS: u16 = 5;
/// Rows from which a lane also shows what each token cost.
const ROOMY: u16 = 14;
const GAPS: u16 = 3;
/// Columns of a line of the scores beside its bar.
const SCORE: usize = 13;

const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// What stands above the lanes.
#[derive(Debug)]
pub struct Header {
    /// The model's name.
    pub model: String,
    /// What it was asked.
    pub prompt: String,
}

/// Draws all lanes as they are at `now`.
pub fn draw(frame: &mut Frame<'_>, lanes: &[Lane], header: &Header, now: Instant) {
    let area = frame.area();
    let margin = u16::from(area.height > ROWS);
    let rows = [
        Constraint::Length(margin),
        Constraint::Fill(1),
        Constraint::Length(margin),
    ];
    let [head, body, foot] = Layout::vertical(rows).areas(area);
    frame.render_widget(head_line(header), head);
    let gaps = lanes.iter().flat_map(|lane| lane.gaps().iter().copied());
    let scale = gaps.max().unwrap_or(1).max(1);
    let mut places = grid(body, lanes.len()).into_iter();
    for (lane, place) in lanes.iter().zip(&mut places) {
        draw_lane(frame, lane, place, scale, now);
    }
    if let Some(place) = places.next() {
        draw_scores(frame, lanes, place);
    }
    frame.render_widget(foot_line(lanes, foot.width), foot);
}

fn head_line(header: &Header) -> Line<'static> {
    let model = one_line(&header.model);
    let model = clip(&model, 30);
    Line::from(vec![
        Span::styled(format!(" {model} "), BOLD),
        Span::styled(format!(" {}", clip(&one_line(&header.prompt), 200)), DIM),
    ])
}

fn foot_line(lanes: &[Lane], width: u16) -> Line<'static> {
    let (long, short) = if lanes.iter().all(Lane::is_over) {
        ("q leaves; a summary follows", "q leaves")
    } else {
        (
            "all at once, for the eye; `cargo compare` measures one at a time. q leaves",
            "for the eye, no measurement. q leaves",
        )
    };
    let text = if long.len() + 2 > width.into() {
        short
    } else {
        long
    };
    Line::styled(format!(" {text}"), DIM)
}

/// Places for `count` lanes: side by side as far as they are wide enough, then below each other. There may be more.
fn grid(area: Rect, count: usize) -> Vec<Rect> {
    let count = count.max(1);
    let columns = usize::from(area.width / COLUMNS).clamp(1, count);
    let rows = Layout::vertical(vec![Constraint::Fill(1); count.div_ceil(columns)]).split(area);
    let row = |row: &Rect| {
        Layout::horizontal(vec![Constraint::Fill(1); columns])
            .split(*row)
            .to_vec()
    };
    rows.iter().flat_map(row).collect()
}

fn draw_lane(frame: &mut Frame<'_>, lane: &Lane, area: Rect, scale: u64, now: Instant) {
    if area.height < ROWS || area.width < COLUMNS / 2 {
        let line = format!("{} {}", lane.contestant().part.number, speed(lane));
        frame.render_widget(Line::styled(line, colour(lane)), area);
        return;
    }
    let roomy = area.height >= ROOMY;
    let block = frame_of(lane, usize::from(area.width), roomy);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let adds = lane.adds();
    let adds = textwrap::wrap(&adds, usize::from(inner.width.saturating_sub(2)));
    let adds: Vec<Line<'_>> = adds
        .into_iter()
        .map(|line| Line::styled(format!(" {line}"), BOLD))
        .collect();
    let rows = [
        Constraint::Length(if roomy { adds.len() as u16 + 1 } else { 0 }),
        Constraint::Fill(1),
        Constraint::Length(if roomy { GAPS } else { 0 }),
        Constraint::Length(1),
        Constraint::Length(1),
    ];
    let [title, text, gaps, gauge, numbers] = Layout::vertical(rows).areas(inner);
    frame.render_widget(Paragraph::new(adds), title);
    draw_text(frame, lane, text);
    draw_gaps(frame, lane, gaps, scale);
    draw_gauge(frame, lane, gauge);
    let seconds = format!("{:.1} s ", lane.elapsed(now).as_secs_f64());
    frame.render_widget(Line::styled(format!(" {}", speed(lane)), BOLD), numbers);
    frame.render_widget(Line::styled(seconds, BOLD).right_aligned(), numbers);
}

/// The frame, with the part's number; without room inside, also with what it adds.
fn frame_of(lane: &Lane, width: usize, roomy: bool) -> Block<'static> {
    let place = lane.place().map(|place| format!(" {} ", ordinal(place)));
    let place = place.unwrap_or_default();
    let room = width.saturating_sub(6 + place.len());
    let title = if roomy {
        lane.name()
    } else {
        clip(&lane.title(), room).into_owned()
    };
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(colour(lane))
        .title(Span::styled(format!(" {title} "), BOLD))
        .title(Line::styled(place, BOLD).right_aligned())
}

/// What each token cost, on the scale of the slowest of all lanes.
fn draw_gaps(frame: &mut Frame<'_>, lane: &Lane, area: Rect, scale: u64) {
    let [label, _, area] = Layout::horizontal([
        Constraint::Length(13),
        Constraint::Length(1),
        Constraint::Fill(1),
    ])
    .areas(area);
    let [_, label] = Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(label);
    frame.render_widget(Line::styled(" ms per token", DIM), label);
    let [area, _] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    let gaps = Sparkline::default()
        .data(cells(lane.gaps(), area.width.into(), scale))
        .max(scale)
        .style(colour(lane));
    frame.render_widget(gaps, area);
}

/// A cell per value, or the means of equal stretches where there are more values than cells; the
/// lowest is still to be seen.
fn cells(values: &[u64], count: usize, scale: u64) -> Vec<u64> {
    let stretch = values.len().div_ceil(count.max(1)).max(1);
    let mean = |values: &[u64]| values.iter().sum::<u64>() / values.len() as u64;
    let lowest = scale.div_ceil(u64::from(GAPS) * 8);
    let means = values.chunks(stretch).map(mean);
    means.map(|mean| mean.max(lowest)).collect()
}

/// The end of the text: what does not fit has scrolled away.
fn draw_text(frame: &mut Frame<'_>, lane: &Lane, area: Rect) {
    let (text, style) = match lane.failure() {
        Some(reason) => (reason.to_owned(), Style::new().fg(Color::Red)),
        None if lane.text().is_empty() => (lane.status(), DIM),
        None => (lane.text().to_owned(), Style::new()),
    };
    let lines = textwrap::wrap(&text, usize::from(area.width.saturating_sub(2)));
    let hidden = lines.len().saturating_sub(area.height.into());
    let lines = lines
        .into_iter()
        .skip(hidden)
        .map(|line| Line::raw(format!(" {line}")));
    let lines: Vec<Line<'_>> = lines.collect();
    frame.render_widget(Paragraph::new(lines).style(style), area);
}

/// How far it is; whoever has finished is at the end, with fewer tokens than expected, too.
fn draw_gauge(frame: &mut Frame<'_>, lane: &Lane, area: Rect) {
    let share = lane.tokens() as f64 / f64::from(lane.max_tokens());
    let ratio = if lane.place().is_some() {
        1.0
    } else {
        share.min(1.0)
    };
    let gauge = LineGauge::default()
        .ratio(ratio)
        .label(match lane.rows() {
            1 => format!(" {:>4} tokens", lane.tokens()),
            rows => format!(" {rows} × {:>3} tokens", lane.tokens()),
        })
        .filled_symbol(THICK.horizontal)
        .unfilled_symbol("─")
        .filled_style(colour(lane))
        .unfilled_style(DIM);
    let [area, _] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    frame.render_widget(gauge, area);
}

fn colour(lane: &Lane) -> Style {
    Style::new().fg(match (lane.place(), lane.failure()) {
        (Some(_), _) => Color::Green,
        (_, Some(_)) => Color::Red,
        (None, None) => Color::Cyan,
    })
}

/// All lanes beside each other as bars, in the place that they leave free.
fn draw_scores(frame: &mut Frame<'_>, lanes: &[Lane], area: Rect) {
    if area.height < ROWS || area.width < COLUMNS / 2 {
        return;
    }
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(DIM)
        .title(Span::styled(" tok/s, all rows ", BOLD));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let rates = lanes.iter().filter_map(Lane::rate_of_all);
    let largest = rates.fold(f64::MIN_POSITIVE, f64::max);
    let room = usize::from(inner.width).saturating_sub(SCORE);
    let line = |lane: &Lane| {
        let number = format!(" {} ", lane.contestant().part.number);
        let rate = lane.rate_of_all().filter(|_| lane.failure().is_none());
        let bar = rate.map_or_else(String::new, |rate| bar(rate / largest, room));
        let told = rate.map_or_else(|| "…".to_owned(), |rate| format!("{rate:.1}"));
        let told = if lane.failure().is_some() {
            "failed"
        } else {
            &told
        };
        let gap = " ".repeat(room.saturating_sub(bar.chars().count()));
        Line::from(vec![
            Span::styled(number, BOLD),
            Span::styled(bar, colour(lane)),
            Span::raw(format!("{gap} {told:>8}")),
        ])
    };
    let lines: Vec<Line<'_>> = lanes.iter().map(line).collect();
    frame.render_widget(Paragraph::new(lines), inner);
}

/// `≈ 12.3 tok/s`: about, until the part itself has said it; with several rows, that of all and of one.
pub(crate) fn speed(lane: &Lane) -> String {
    let about = if lane.answers().is_some() { "" } else { "≈ " };
    match (lane.failure(), lane.rate(), lane.rows()) {
        (Some(_), ..) => "failed".to_owned(),
        (None, Some(rate), 1) => format!("{about}{rate:.1} tok/s"),
        (None, Some(rate), rows) => {
            let all = f64::from(rows) * rate;
            format!("{about}{all:.1} tok/s, {rate:.1} a row")
        }
        (None, None, _) => "…".to_owned(),
    }
}

/// 1st, 2nd, 3rd; there are not so many parts that 11 or 21 matter.
fn ordinal(place: usize) -> String {
    let ending = match place {
        1 => "st",
        2 => "nd",
        3 => "rd",
        _ => "th",
    };
    format!("{place}{ending}")
}

#[cfg(test)]
mod tests;
