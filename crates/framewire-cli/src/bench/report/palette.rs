use std::fmt::Write;

use plotters::style::RGBColor;

/// A colour of the light page and what the dark page shows in its place.
struct Pair(u32, u32);

/// One colour per contestant, in order; told apart by lightness too, for those who do not see hues.
const SERIES: [Pair; 10] = [
    Pair(0x1F6FEB, 0x5B9BFF),
    Pair(0x0E8F9C, 0x3CC7D3),
    Pair(0x7A5FD3, 0xB3A4FA),
    Pair(0x7C838D, 0xA9AFB8),
    Pair(0xD9480F, 0xFF8A4C),
    Pair(0xB07A12, 0xE6B655),
    Pair(0x2B8A3E, 0x5FD07A),
    Pair(0xC2255C, 0xFF7AAB),
    Pair(0x4F3A24, 0xC9A98A),
    Pair(0x862E9C, 0xDA93F0),
];
const INK_PAIR: Pair = Pair(0x1B2430, 0xE4E9F0);
const MUTED_PAIR: Pair = Pair(0x5B6776, 0x9BA7B6);
const GRID_PAIR: Pair = Pair(0xE4E8ED, 0x2B3441);

pub(super) const INK: RGBColor = rgb(INK_PAIR.0);
pub(super) const MUTED: RGBColor = rgb(MUTED_PAIR.0);
pub(super) const GRID: RGBColor = rgb(GRID_PAIR.0);

/// The colour of contestant number `index`; after ten they come again.
pub(super) fn series(index: usize) -> RGBColor {
    SERIES.iter().cycle().nth(index % SERIES.len()).map_or(INK, |pair| rgb(pair.0))
}

/// The class of a chip in that colour.
pub(super) fn class(index: usize) -> String {
    format!("s{}", index % SERIES.len())
}

/// Rules that repaint the charts for one of the two schemes: the library writes colours as attributes, which any rule
/// outweighs.
pub(super) fn rules(scheme: Scheme) -> String {
    let mut css = String::new();
    for Pair(light, dark) in SERIES.iter().chain([&INK_PAIR, &MUTED_PAIR, &GRID_PAIR]) {
        if scheme == Scheme::Dark {
            let _ = writeln!(css, "svg [fill=\"#{light:06X}\"]{{fill:#{dark:06X}}}");
            let _ = writeln!(css, "svg [stroke=\"#{light:06X}\"]{{stroke:#{dark:06X}}}");
        }
    }
    for (index, Pair(light, dark)) in SERIES.iter().enumerate() {
        let colour = if scheme == Scheme::Dark { dark } else { light };
        let _ = writeln!(css, ".s{index}{{background:#{colour:06X}}}");
    }
    css
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Light,
    Dark,
}

const fn rgb(hex: u32) -> RGBColor {
    let [_, red, green, blue] = hex.to_be_bytes();
    RGBColor(red, green, blue)
}
