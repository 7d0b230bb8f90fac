//! Random flips and shifts of training pictures.

use convert::random::Rng;

/// Which random changes a training picture undergoes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Augment {
    /// Mirror left and right, half of the time.
    pub flip: bool,
    /// Largest shift in pixels along each axis; the border is filled with its mirror image.
    pub shift: usize,
}

impl Augment {
    /// Leaves pictures as they are.
    pub const NONE: Self = Self { flip: false, shift: 0 };

    /// Flips, and shifts by an eighth of the side (4 pixels of 32).
    pub fn standard(side: usize) -> Self {
        Self { flip: true, shift: side / 8 }
    }

    /// Writes a randomly changed copy of `src`, `[height, width, 3]`, to `dst`.
    pub(crate) fn apply(
        self,
        src: &[u8],
        height: usize,
        width: usize,
        rng: &mut Rng,
        dst: &mut [u8],
    ) {
        let flip = self.flip && rng.unit() < 0.5;
        let mut offset = |len: usize| {
            // A shift beyond the picture would need its mirror image twice.
            let most = self.shift.min(len.saturating_sub(1));
            rng.below(2 * most + 1) as isize - most as isize
        };
        let (dy, dx) = (offset(height), offset(width));
        for (y, row) in dst.chunks_exact_mut(width * 3).take(height).enumerate() {
            let source = mirrored(y as isize + dy, height) * width;
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                let x = if flip { width - 1 - x } else { x };
                let from = (source + mirrored(x as isize + dx, width)) * 3;
                pixel.copy_from_slice(&src[from..from + 3]);
            }
        }
    }
}

/// `i` reflected into `0..len` about the edge pixels: −1 is 1, `len` is `len − 2`.
fn mirrored(i: isize, len: usize) -> usize {
    let last = len as isize - 1;
    let i = i.abs();
    (if i > last { 2 * last - i } else { i }).clamp(0, last.max(0)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_about_the_edge() {
        let got: Vec<_> = (-2..6).map(|i| mirrored(i, 4)).collect();
        assert_eq!(got, [2, 1, 0, 1, 2, 3, 2, 1]);
        assert_eq!(mirrored(0, 1), 0);
    }

    #[test]
    fn flips_happen_about_half_the_time() {
        let src: Vec<u8> = (0..12).collect();
        let mut dst = vec![0; 12];
        let mut flips = 0;
        for i in 0..1000 {
            let augment = Augment { flip: true, shift: 0 };
            augment.apply(&src, 2, 2, &mut Rng::keyed(&[i]), &mut dst);
            if dst == src {
                continue;
            }
            assert_eq!(dst, [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]);
            flips += 1;
        }
        assert!((430..570).contains(&flips), "{flips}");
    }

    #[test]
    fn no_augmentation_is_a_copy() {
        let src: Vec<u8> = (0..27).collect();
        let mut dst = vec![0; 27];
        Augment::NONE.apply(&src, 3, 3, &mut Rng::keyed(&[1]), &mut dst);
        assert_eq!(dst, src);
    }
}
