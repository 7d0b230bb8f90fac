//! Instructions of one pass of each term; made by `firmware-demo/costs.sh`.

use super::Terms;

#[rustfmt::skip]
pub(super) const CORTEX_M0PLUS: Terms = [
    0.0000, // Convolution
    1946.4004, // Column
    9.6387, // Widened
    3566.6971, // Window
    4.3581, // Copied
    6.6880, // Product
    870.2177, // Pair
    29.6953, // Residual
    0.0000, // Grouped
    6.7620, // Moved
    0.0000, // Depthwise
    1048.1950, // Band
    17.5763, // Plane
    160.0408, // Row
    322.8703, // Stride1
    301.2019, // Stride2
    0.0000, // Output
    19.1812, // Tap
    3153.6995, // Other
    274.4458, // Pooled
    10.4366, // Read
    0.0000, // Affine
    87.3520, // Gated
    6.9916, // LookedUp
];

#[rustfmt::skip]
pub(super) const CORTEX_M3: Terms = [
    1186.4483, // Convolution
    801.8254, // Column
    3.2476, // Widened
    1865.5769, // Window
    0.0414, // Copied
    1.9976, // Product
    298.7636, // Pair
    21.7388, // Residual
    0.0000, // Grouped
    3.4386, // Moved
    5004.3641, // Depthwise
    1077.9304, // Band
    9.1118, // Plane
    76.3275, // Row
    180.3064, // Stride1
    196.6728, // Stride2
    0.0000, // Output
    11.9831, // Tap
    1771.0208, // Other
    50.4563, // Pooled
    8.5109, // Read
    0.0000, // Affine
    36.1563, // Gated
    4.9933, // LookedUp
];

#[rustfmt::skip]
pub(super) const CORTEX_M4: Terms = [
    3328.2953, // Convolution
    197.1878, // Column
    0.7009, // Widened
    679.1779, // Window
    1.5030, // Copied
    0.8560, // Product
    44.3663, // Pair
    6.7308, // Residual
    0.0000, // Grouped
    0.0000, // Moved
    0.0000, // Depthwise
    544.9108, // Band
    4.3122, // Plane
    35.0296, // Row
    22.4602, // Stride1
    13.6307, // Stride2
    83.4640, // Output
    10.0916, // Tap
    1765.6560, // Other
    47.4941, // Pooled
    7.5122, // Read
    0.0000, // Affine
    37.1557, // Gated
    4.9934, // LookedUp
];

#[rustfmt::skip]
pub(super) const CORTEX_M33: Terms = [
    3291.8671, // Convolution
    195.4128, // Column
    0.6984, // Widened
    691.6467, // Window
    1.5746, // Copied
    0.8560, // Product
    44.3441, // Pair
    6.8131, // Residual
    0.0000, // Grouped
    0.0000, // Moved
    0.0000, // Depthwise
    522.6240, // Band
    4.2908, // Plane
    34.8443, // Row
    22.5379, // Stride1
    13.8493, // Stride2
    87.4298, // Output
    10.1353, // Tap
    1773.7603, // Other
    46.4877, // Pooled
    7.5393, // Read
    0.0000, // Affine
    37.1739, // Gated
    4.9924, // LookedUp
];

#[rustfmt::skip]
pub(super) const RISCV32: Terms = [
    1481.2077, // Convolution
    806.3143, // Column
    6.6765, // Widened
    1571.6609, // Window
    3.6146, // Copied
    3.0737, // Product
    326.2623, // Pair
    19.2700, // Residual
    0.0000, // Grouped
    4.4956, // Moved
    2430.9516, // Depthwise
    1432.0125, // Band
    7.6212, // Plane
    49.2788, // Row
    194.0305, // Stride1
    205.9633, // Stride2
    0.0000, // Output
    12.6047, // Tap
    2529.1219, // Other
    57.7492, // Pooled
    10.4292, // Read
    0.0000, // Affine
    31.1674, // Gated
    7.9947, // LookedUp
];
