//! Width and height, where the first bytes of a file tell them.

use crate::jpeg;
use crate::kind::{Class, Kind};

/// Width and height in pixels, as it is shown: a JPEG turned as its EXIF data say, an MP4 as its
/// track does. None where the head does not tell, as of an MP4 that has its index at the end.
/// The work is bounded by the head, which is at most [`HEAD_BYTES`](crate::HEAD_BYTES).
///
/// Nothing here proves that the file is whole, or can be decoded.
pub fn dimensions(kind: &Kind, head: &[u8]) -> Option<(u32, u32)> {
    let head = &head[..head.len().min(crate::HEAD_BYTES)];
    let (width, height) = match kind.class {
        Class::Image => {
            let size = imagesize::blob_size(head).ok()?;
            let size = (u32::try_from(size.width).ok()?, u32::try_from(size.height).ok()?);
            if kind.media_type == "image/jpeg" && jpeg::lies(head) { turned(size) } else { size }
        }
        Class::Video if matches!(kind.media_type, "video/mp4" | "video/quicktime") => mp4(head)?,
        Class::Video | Class::Audio | Class::Document => return None,
    };
    (width > 0 && height > 0).then_some((width, height))
}

fn turned((width, height): (u32, u32)) -> (u32, u32) {
    (height, width)
}

/// The size of the first track of an MP4 that has one.
fn mp4(head: &[u8]) -> Option<(u32, u32)> {
    let movie = boxes(head).find(|(name, _)| *name == b"moov")?.1;
    boxes(movie)
        .filter(|(name, _)| *name == b"trak")
        .filter_map(|(_, track)| boxes(track).find(|(name, _)| *name == b"tkhd"))
        .filter_map(|(_, header)| track_size(header))
        .find(|(width, height)| *width > 0 && *height > 0)
}

fn track_size(header: &[u8]) -> Option<(u32, u32)> {
    // Version 1 has three times of eight bytes instead of four.
    let matrix = if *header.first()? == 1 { 52 } else { 40 };
    let number = |at: usize| {
        let bytes = header.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    // Of the matrix only a quarter turn matters: what scales the width is nothing then.
    let on_its_side = number(matrix)? == 0 && number(matrix + 4)? != 0;
    // Fixed point, with 16 bits of fraction.
    let size = (number(matrix + 36)? >> 16, number(matrix + 40)? >> 16);
    Some(if on_its_side { turned(size) } else { size })
}

/// The boxes that follow each other here; the last may be cut off.
fn boxes(data: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (header, _) = rest.split_first_chunk::<8>()?;
        let (size, name) = header.split_first_chunk::<4>()?;
        let name: &[u8; 4] = name.try_into().ok()?;
        let (start, length) = match u32::from_be_bytes(*size) {
            // To the end of the file.
            0 => (8, rest.len()),
            1 => {
                let long = u64::from_be_bytes(rest.get(8..16)?.try_into().ok()?);
                (16, usize::try_from(long).unwrap_or(usize::MAX))
            }
            size => (8, usize::try_from(size).unwrap_or(usize::MAX)),
        };
        let end = length.min(rest.len());
        let content = rest.get(start..end)?;
        rest = &rest[end..];
        Some((name, content))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ExtendedColorType, ImageEncoder, ImageFormat, RgbImage};
    use proptest::prelude::*;

    use super::*;
    use crate::sniff;

    fn of(head: &[u8]) -> Option<(u32, u32)> {
        dimensions(&sniff(head), head)
    }

    /// EXIF data with one entry: the orientation.
    fn exif(orientation: u8) -> Vec<u8> {
        let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        exif
    }

    fn a_box(name: &str, content: &[u8]) -> Vec<u8> {
        let size = u32::try_from(content.len() + 8).expect("a small box");
        [&size.to_be_bytes()[..], name.as_bytes(), content].concat()
    }

    fn movie(width: u32, height: u32, matrix: [u32; 2]) -> Vec<u8> {
        let mut header = vec![0; 40];
        header.extend(matrix.iter().flat_map(|number| number.to_be_bytes()));
        header.extend([0; 28]);
        header.extend((width << 16).to_be_bytes());
        header.extend((height << 16).to_be_bytes());
        let sound = a_box("trak", &a_box("tkhd", &[0; 84]));
        let picture = a_box("trak", &a_box("tkhd", &header));
        let start = a_box("ftyp", b"isom\0\0\x02\0isomiso2");
        [start, a_box("moov", &[sound, picture].concat())].concat()
    }

    #[test]
    fn pictures_tell_their_size() {
        for format in [ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Jpeg] {
            let mut bytes = Cursor::new(Vec::new());
            RgbImage::new(40, 30).write_to(&mut bytes, format).expect("encodes");
            assert_eq!(of(bytes.get_ref()), Some((40, 30)), "{format:?}");
        }
    }

    #[test]
    fn a_jpeg_is_turned_as_its_exif_data_say() {
        for orientation in 1..=8 {
            let mut bytes = Vec::new();
            let mut encoder = image::codecs::jpeg::JpegEncoder::new(&mut bytes);
            encoder.set_exif_metadata(exif(orientation)).expect("takes EXIF data");
            let pixels = RgbImage::new(40, 30);
            encoder.write_image(&pixels, 40, 30, ExtendedColorType::Rgb8).expect("encodes");
            let expected = if orientation >= 5 { (30, 40) } else { (40, 30) };
            assert_eq!(of(&bytes), Some(expected), "orientation {orientation}");
        }
    }

    #[test]
    fn a_film_tells_the_size_of_its_picture_track() {
        assert_eq!(of(&movie(1920, 1080, [0x1_0000, 0])), Some((1920, 1080)));
        assert_eq!(of(&movie(1920, 1080, [0, 0x1_0000])), Some((1080, 1920)));
        assert_eq!(of(&movie(0, 0, [0x1_0000, 0])), None);
        let no_index = [a_box("ftyp", b"isom\0\0\x02\0isomiso2"), a_box("mdat", &[0; 50])];
        assert_eq!(of(&no_index.concat()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(
            media_type in prop::sample::select(vec![
                ("image/jpeg", Class::Image), ("image/avif", Class::Image),
                ("video/mp4", Class::Video), ("text/plain", Class::Document),
            ]),
            start in prop::sample::select(vec![
                &b""[..], b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM",
                b"RIFF\0\0\0\0WEBPVP8", b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", b"\0\0\0\x08moov",
            ]),
            rest in proptest::collection::vec(any::<u8>(), 0..500),
        ) {
            let kind = Kind { media_type: media_type.0, class: media_type.1 };
            dimensions(&kind, &[start, &rest].concat());
        }

        #[test]
        fn no_broken_film_is_too_much(at in 0_usize..300, byte: u8) {
            let mut film = movie(640, 480, [0x1_0000, 0]);
            let at = at % film.len();
            film[at] = byte;
            of(&film);
            of(&film[..at]);
        }
    }
}
