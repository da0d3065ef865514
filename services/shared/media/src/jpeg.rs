//! What the first segments of a JPEG tell, without decoding it.

/// Whether its EXIF data say that it lies on its side: orientations 5 to 8.
pub(crate) fn lies(head: &[u8]) -> bool {
    segments(head)
        .filter(|(marker, _)| *marker == 0xE1)
        .find_map(|(_, content)| content.strip_prefix(b"Exif\0\0"))
        .and_then(image::metadata::Orientation::from_exif_chunk)
        .is_some_and(|orientation| orientation.to_exif() >= 5)
}

/// Whether it is decoded as it is read. A progressive one is not: its decoder holds all
/// coefficients at once.
pub(crate) fn is_sequential(bytes: &[u8]) -> bool {
    let frame = |marker| matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
    segments(bytes)
        .find(|(marker, _)| frame(*marker))
        .is_some_and(|(marker, _)| matches!(marker, 0xC0 | 0xC1))
}

/// The whole segments before the scan, by marker and content.
fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [0xFF, marker, high, low, ..] = *rest else { return None };
        let end = 2 + usize::from(u16::from_be_bytes([high, low]));
        if marker == 0xDA {
            return None;
        }
        let content = rest.get(4..end)?;
        rest = &rest[end..];
        Some((marker, content))
    })
}
