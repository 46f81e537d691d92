"""Make the font of the formulas from STIX Two Math: python -m tools.mathfont STIXTwoMath-Regular.ttf

Writes _assets/vendor/fonts/stix-two-math.woff2 with the characters that formulas use. What is changed for browsers:
tall root signs are as wide as the small one, since Chromium reserves the width of the widest; the line of a root keeps
its distance from a bar below it; a prime has the form that it has as a superscript. Needs fontTools and brotli.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fontTools import subset
from fontTools.misc.transform import Scale
from fontTools.pens.transformPen import TransformPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont

TARGET = Path(__file__).parent.parent / "_assets" / "vendor" / "fonts" / "stix-two-math.woff2"
ROOT, PRIME = 0x221A, 0x2032
GAP = 0.11  # between a root's line and what is below it, in em
CHARACTERS = (
    "20-7E A0 A7 AC AF B1 B7 D7 F7 131 237 2C6-2C7 2D8-2DC 300-30C 338 391-3C9 3D1 3D5-3D6 3F1 3F5 2013-2014 2016 "
    "2018-201D 2020-2021 2026 2032-2034 203E 2044 2061-2063 20D7 2102 210B 210E 2110 2112-2113 2115 2119-211B 211D "
    "2124 212C 2130-2131 2133 2190-2194 21A6 21D0-21D4 2200-2209 220F-2213 2215-221E 2223-222B 2234-223D 2245-224C "
    "2254-2255 2260-2265 226A-226B 2272-2273 227A-227B 2282-228B 2295-2299 22A4-22A5 22C5-22C6 22EE-22F1 2308-230B "
    "23B4-23B5 23DC-23DF 25A0-25A1 25FB 27E8-27E9 27F5-27FA 2A7D-2A7E 1D400-1D467 1D49C-1D4B5 1D538-1D551 "
    "1D670-1D6A5 1D6C2-1D71B 1D7CE-1D7D7 1D7D9"
)


def narrow(font: TTFont, name: str, width: int) -> None:
    """Make a glyph as wide as this by squeezing it."""
    glyphs, metrics = font["glyf"], font["hmtx"]
    scale = width / metrics[name][0]
    pen = TTGlyphPen(font.getGlyphSet())
    font.getGlyphSet()[name].draw(TransformPen(pen, Scale(scale, 1)))
    glyphs[name] = pen.glyph()
    metrics[name] = (width, round(metrics[name][1] * scale))


def changed(font: TTFont) -> None:
    """Roots of one width, with a gap below the line, and the prime of superscripts."""
    names, math = font.getBestCmap(), font["MATH"].table
    variants = math.MathVariants
    root = variants.VertGlyphConstruction[variants.VertGlyphCoverage.glyphs.index(names[ROOT])]
    tall = {variant.VariantGlyph for variant in root.MathGlyphVariantRecord} - {names[ROOT]}
    for name in tall | {part.glyph for part in root.GlyphAssembly.PartRecords}:
        narrow(font, name, font["hmtx"][names[ROOT]][0])
    math.MathConstants.RadicalVerticalGap.Value = round(GAP * font["head"].unitsPerEm)
    ssty = {f.FeatureTag: f.Feature for f in font["GSUB"].table.FeatureList.FeatureRecord}["ssty"]
    lookup = font["GSUB"].table.LookupList.Lookup[ssty.LookupListIndex[0]].SubTable[0]
    small = getattr(lookup, "ExtSubTable", lookup).alternates[names[PRIME]][0]
    for table in font["cmap"].tables:
        if PRIME in table.cmap:
            table.cmap[PRIME] = small


def main(source: str) -> None:
    """Change, keep the characters, write."""
    font = TTFont(source)
    changed(font)
    options = subset.Options(layout_features=[], hinting=False, flavor="woff2")
    chosen = subset.Subsetter(options)
    chosen.populate(unicodes=subset.parse_unicodes(CHARACTERS.replace(" ", ",")))
    chosen.subset(font)
    subset.save_font(font, str(TARGET), options)


if __name__ == "__main__":
    main(sys.argv[1])
