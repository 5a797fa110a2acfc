use plotters::coord::Shift;
use plotters::prelude::*;

use super::palette::{GRID, MUTED};
use crate::bench::error::BenchError;
use crate::bench::text::{duration, short};

/// One line: its colour and its points.
pub(super) struct Line {
    pub colour: RGBColor,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: u32 = 560;
const FONT: &str = "sans-serif";
/// Size of axis labels.
const SMALL: u32 = 13;
/// Height of one bar of the charts beside, with the room around it.
const ROW: u32 = 28;
/// Room for the values on the left of a line chart.
const VALUES: u32 = 84;
/// The latency curve begins here: the fastest few would stretch the axis and say nothing.
const FASTEST: f64 = 0.1;

type Result<T = ()> = std::result::Result<T, BenchError>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Latency over the share of messages that were at least as fast, both stretched so that the slow tail can be read.
pub(super) fn latency(lines: &[Line]) -> Result<String> {
    let points = || lines.iter().flat_map(|line| &line.points).filter(|point| point.0 >= FASTEST);
    let (least, most) = ends(points().map(|point| point.1));
    let nines = points().map(|point| nines_of(point.0)).fold(1.0, f64::max);
    // as high as the two bar charts that it stands beside, headings included
    let bars = ROW * u32::try_from(lines.len()).unwrap_or(1);
    let height = (2 * bars + 80).clamp(300, 560);
    draw(WIDTH, height, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(34)
            .set_label_area_size(LabelAreaPosition::Left, VALUES)
            .set_label_area_size(LabelAreaPosition::Bottom, 30)
            .build_cartesian_2d(0.0..nines, (least * 0.8..most * 1.25).log_scale())
            .map_err(error)?;
        chart
            .configure_mesh()
            .x_labels(5)
            .x_label_formatter(&|value| percent(*value))
            .y_labels(8)
            .y_label_formatter(&|value| duration(*value))
            .axis_style(GRID)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style((FONT, SMALL).into_font().color(&MUTED))
            .draw()
            .map_err(error)?;
        for line in lines {
            let shown = line.points.iter().filter(|point| point.0 >= FASTEST);
            let points = shown.map(|&(quantile, us)| (nines_of(quantile), us.max(least)));
            chart.draw_series(LineSeries::new(points, line.colour.stroke_width(2))).map_err(error)?;
        }
        Ok(())
    })
}

/// A figure over the number of connections, which is stretched so that 10, 100 and 1,000 are evenly apart.
pub(super) fn over_connections(lines: &[Line]) -> Result<String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (fewest, most) = ends(points().map(|point| point.0));
    let top = points().map(|point| point.1).fold(0.0, f64::max);
    draw(WIDTH, 280, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(34)
            .set_label_area_size(LabelAreaPosition::Left, VALUES)
            .set_label_area_size(LabelAreaPosition::Bottom, 48)
            .build_cartesian_2d((fewest * 0.85..most * 1.18).log_scale(), 0.0..top * 1.08)
            .map_err(error)?;
        chart
            .configure_mesh()
            .x_label_formatter(&|value| sparse_tick(*value))
            .x_desc("connections")
            .axis_desc_style((FONT, SMALL).into_font().color(&MUTED))
            .y_labels(6)
            .y_label_formatter(&|value| tick(*value))
            .axis_style(GRID)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style((FONT, SMALL).into_font().color(&MUTED))
            .draw()
            .map_err(error)?;
        for line in lines {
            let colour = line.colour;
            let path = LineSeries::new(line.points.iter().copied(), colour.stroke_width(2));
            chart.draw_series(path).map_err(error)?;
            let dots = line.points.iter().map(|&point| Circle::new(point, 4, colour.filled()));
            chart.draw_series(dots).map_err(error)?;
        }
        Ok(())
    })
}

fn draw(width: u32, height: u32, paint: impl FnOnce(&Area<'_>) -> Result) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        paint(&area)?;
        area.present().map_err(error)?;
    }
    Ok(svg)
}

fn error(error: impl std::fmt::Display) -> BenchError {
    BenchError::Chart(error.to_string())
}

/// 0.9 is 1, 0.99 is 2, 0.999 is 3.
fn nines_of(quantile: f64) -> f64 {
    -(1.0 - quantile.min(1.0 - 1e-12)).log10()
}

fn percent(nines: f64) -> String {
    let share = 100.0 * (1.0 - 10_f64.powf(-nines));
    let digits = (nines - 2.0).ceil().max(0.0) as usize;
    format!("{share:.digits$} %")
}

/// An axis label: `0`, `250`, `1.5k`, `2M`.
fn tick(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = short(scaled);
    let trimmed = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{trimmed}{unit}")
}

/// A label on an axis whose upper digits crowd together: only 1, 2 and 5 of each decade.
fn sparse_tick(value: f64) -> String {
    let digit = value / 10_f64.powf(value.log10().floor());
    if [1.0, 2.0, 5.0].iter().any(|shown| (digit - shown).abs() < 1e-6) { tick(value) } else { String::new() }
}

/// The smallest and the largest of some numbers, of which a logarithm can be taken.
fn ends(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) =
        numbers.fold((f64::INFINITY, 0.0_f64), |(least, most), n| (least.min(n), most.max(n)));
    let least = if least.is_finite() { least.max(0.1) } else { 1.0 };
    (least, most.max(least * 1.01))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_of_nothing_or_of_equal_points_are_drawn_all_the_same() {
        assert!(latency(&[]).is_ok());
        assert!(over_connections(&[Line { colour: MUTED, points: vec![(10.0, 0.0), (10.0, 0.0)] }]).is_ok());
    }

    #[test]
    fn quantiles_are_stretched_by_their_nines() {
        assert!((nines_of(0.99) - 2.0).abs() < 1e-9);
        assert_eq!(
            (percent(1.0), percent(2.0), percent(3.0)),
            ("90 %".into(), "99 %".into(), "99.9 %".into())
        );
    }

    #[test]
    fn crowded_ticks_are_left_out() {
        assert_eq!(sparse_tick(100.0), "100");
        assert_eq!((sparse_tick(90.0), sparse_tick(50.0)), (String::new(), "50".into()));
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(
            (tick(0.0), tick(1500.0), tick(20_000.0), tick(1.5e6)),
            ("0".into(), "1,500".into(), "20k".into(), "1.5M".into())
        );
    }
}
