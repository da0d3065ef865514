//! A small picture of a picture.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageError, ImageFormat,
    ImageReader, Limits,
};

use crate::jpeg;

/// How wide and how high a thumbnail is at most, in pixels.
pub const SIDE: u32 = 320;
/// How many pixels a picture may have.
const PIXELS: u64 = 50_000_000;
/// How much memory the decoder may take, in bytes; its picture is a part of it.
const MEMORY: u64 = 256 << 20;
/// What a progressive JPEG takes besides, in bytes a pixel: three coefficients of two bytes. The
/// decoder has no limit for these; measured, 48 megapixels took 414 MiB.
const COEFFICIENTS: u64 = 6;
/// Of JPEG, out of 100: hardly to be told from the original at this size.
const QUALITY: u8 = 80;

/// A thumbnail: PNG if it is transparent somewhere, else JPEG; without any metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// The file.
    pub bytes: Vec<u8>,
    /// `image/jpeg` or `image/png`.
    pub media_type: &'static str,
    /// In pixels, at most [`SIDE`].
    pub width: u32,
    /// In pixels, at most [`SIDE`].
    pub height: u32,
}

/// Why there is no thumbnail; there will be none the next time either.
#[derive(Debug, thiserror::Error)]
pub enum ThumbnailError {
    /// It is none of PNG, JPEG, GIF and WebP.
    #[error("this format is not drawn small")]
    Format,
    /// It has more than 50 megapixels (29 as a progressive JPEG), or its decoder wants more than
    /// 256 MiB.
    #[error("the picture is too large to be drawn small")]
    TooLarge,
    /// It is broken.
    #[error("the picture cannot be decoded")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<ImageError> for ThumbnailError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Limits(_) => Self::TooLarge,
            ImageError::Unsupported(_) => Self::Format,
            error => Self::Broken(Box::new(error)),
        }
    }
}

/// Draws a picture small, at most 320×320 pixels, turned as its EXIF data say; the first picture of
/// an animation. A picture that is small already keeps its size.
///
/// This computes, for some seconds with the largest pictures: run it on a thread for such
/// (`spawn_blocking`), and not too many at once, as each may take 256 MiB and a little.
pub fn thumbnail(bytes: &[u8]) -> Result<Thumbnail, ThumbnailError> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| ThumbnailError::Broken(Box::new(error)))?;
    let format = reader.format();
    let known = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP];
    if !format.is_some_and(|format| known.contains(&format)) {
        return Err(ThumbnailError::Format);
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MEMORY);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    let all_at_once = format == Some(ImageFormat::Jpeg) && !jpeg::is_sequential(bytes);
    let besides = if all_at_once { pixels.saturating_mul(COEFFICIENTS) } else { 0 };
    if pixels > PIXELS || decoder.total_bytes().saturating_add(besides) > MEMORY {
        return Err(ThumbnailError::TooLarge);
    }
    // Broken EXIF data are no reason to show nothing.
    let orientation = decoder.orientation().ok();
    let mut picture = DynamicImage::from_decoder(decoder)?;
    if width > SIDE || height > SIDE {
        picture = picture.thumbnail(SIDE, SIDE);
    }
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    encode(&picture)
}

fn encode(picture: &DynamicImage) -> Result<Thumbnail, ThumbnailError> {
    let (width, height) = (picture.width(), picture.height());
    let mut bytes = Vec::new();
    // Many files have an alpha channel that says nothing.
    let rgba = picture.color().has_alpha().then(|| picture.to_rgba8());
    let media_type = match rgba {
        Some(rgba) if rgba.pixels().any(|pixel| pixel[3] != u8::MAX) => {
            rgba.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)?;
            "image/png"
        }
        _ => {
            let rgb = picture.to_rgb8();
            JpegEncoder::new_with_quality(&mut bytes, QUALITY).write_image(
                &rgb,
                width,
                height,
                ExtendedColorType::Rgb8,
            )?;
            "image/jpeg"
        }
    };
    Ok(Thumbnail { bytes, media_type, width, height })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use image::{Rgb, RgbImage, Rgba, RgbaImage};
    use proptest::prelude::*;

    use super::*;

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("encodes");
        bytes.into_inner()
    }

    fn plain(width: u32, height: u32) -> DynamicImage {
        RgbImage::from_pixel(width, height, Rgb([200, 30, 30])).into()
    }

    #[test]
    fn pictures_are_drawn_small() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
            let small = thumbnail(&encoded(&plain(800, 400), format)).expect("draws");
            assert_eq!((small.width, small.height), (320, 160), "{format:?}");
            assert_eq!(small.media_type, "image/jpeg");
            let drawn = image::load_from_memory(&small.bytes).expect("decodes");
            assert_eq!((drawn.width(), drawn.height()), (320, 160));
            let Rgb([red, green, _]) = *drawn.to_rgb8().get_pixel(100, 100);
            assert!(red > 180 && green < 60);
        }
    }

    #[test]
    fn a_small_picture_keeps_its_size_and_a_thin_one_something() {
        let small = thumbnail(&encoded(&plain(20, 10), ImageFormat::Png)).expect("draws");
        assert_eq!((small.width, small.height), (20, 10));
        let thin = thumbnail(&encoded(&plain(5000, 1), ImageFormat::Png)).expect("draws");
        assert_eq!((thin.width, thin.height), (320, 1));
    }

    #[test]
    fn what_is_transparent_stays_so() {
        let clear = RgbaImage::from_pixel(400, 400, Rgba([0, 0, 0, 0])).into();
        let small = thumbnail(&encoded(&clear, ImageFormat::Png)).expect("draws");
        assert_eq!(small.media_type, "image/png");
        let opaque = RgbaImage::from_pixel(400, 400, Rgba([0, 0, 0, 255])).into();
        let small = thumbnail(&encoded(&opaque, ImageFormat::Png)).expect("draws");
        assert_eq!(small.media_type, "image/jpeg");
    }

    #[test]
    fn a_picture_is_turned_and_loses_its_metadata() {
        // Orientation 6, and the name of a camera that nobody needs to know.
        let mut exif = b"II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0".to_vec();
        exif.extend(b"\x10\x01\x02\0\x07\0\0\0\x26\0\0\0\0\0\0\0SECRET\0");
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new(&mut bytes);
        encoder.set_exif_metadata(exif).expect("takes EXIF data");
        let pixels = plain(800, 400).to_rgb8();
        encoder.write_image(&pixels, 800, 400, ExtendedColorType::Rgb8).expect("encodes");
        assert!(bytes.windows(6).any(|window| window == b"SECRET"));

        let small = thumbnail(&bytes).expect("draws");
        assert_eq!((small.width, small.height), (160, 320));
        assert!(!small.bytes.windows(4).any(|window| window == b"Exif" || window == b"SECR"));
    }

    /// A PNG that says it is this large, with next to nothing in it.
    fn bomb(width: u32, height: u32) -> Vec<u8> {
        let mut png = encoded(&plain(1, 1), ImageFormat::Png);
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let sum = crc(&png[12..29]);
        png[29..33].copy_from_slice(&sum.to_be_bytes());
        png
    }

    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 }
            })
        })
    }

    #[test]
    fn a_bomb_is_refused_before_it_goes_off() {
        let begun = Instant::now();
        for (width, height) in [(60_000, 60_000), (8_000, 7_000), (u32::MAX >> 1, 1)] {
            let refused = thumbnail(&bomb(width, height));
            assert!(matches!(refused, Err(ThumbnailError::TooLarge)), "{refused:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_progressive_picture_may_have_fewer_pixels() {
        // 40 megapixels, and no pixel of them: only the frame's header says so.
        let claims = |frame: u8| {
            let mut jpeg = encoded(&plain(16, 16), ImageFormat::Jpeg);
            let at = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).expect("a frame");
            jpeg[at + 1] = frame;
            jpeg[at + 5..at + 9].copy_from_slice(&[0x13, 0x88, 0x1F, 0x40]);
            jpeg
        };
        let refused = thumbnail(&claims(0xC2));
        assert!(matches!(refused, Err(ThumbnailError::TooLarge)), "{refused:?}");
        assert!(jpeg::is_sequential(&claims(0xC0)) && !jpeg::is_sequential(&claims(0xC2)));
    }

    #[test]
    fn other_formats_are_refused() {
        for bytes in [&b"BM\0\0\0\0\0\0\0\0"[..], b"<svg/>", b"", b"%PDF-1.7"] {
            assert!(matches!(thumbnail(bytes), Err(ThumbnailError::Format)));
        }
        assert!(matches!(thumbnail(b"\x89PNG\r\n\x1a\nxx"), Err(ThumbnailError::Broken(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(
            start in prop::sample::select(vec![
                &b""[..], b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"RIFF\x40\0\0\0WEBPVP8 ",
            ]),
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            // That it fails is all right; that it panics is not.
            let _ = thumbnail(&[start, &rest].concat());
        }

        #[test]
        fn no_broken_picture_is_too_much(
            format in prop::sample::select(vec![
                ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP,
            ]),
            at: prop::sample::Index,
            byte: u8,
            cut: bool,
        ) {
            let mut bytes = encoded(&plain(9, 7), format);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if cut {
                bytes.truncate(at);
            }
            let _ = thumbnail(&bytes);
        }
    }
}
