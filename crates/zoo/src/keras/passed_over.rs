//! Layers that matter to training alone.

/// Layers that do nothing to a picture once a model is trained.
const PASSED_OVER: &str = "\
    ActivityRegularization AlphaDropout AugMix Cast CutMix Dropout Equalization GaussianDropout \
    GaussianNoise Identity MaxNumBoundingBoxes MixUp RandAugment RandomApply RandomBrightness \
    RandomColorDegeneration RandomColorJitter RandomContrast RandomElasticTransform \
    RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHeight RandomHue \
    RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation \
    RandomSharpness RandomShear RandomTranslation RandomWidth RandomZoom Solarization \
    SpatialDropout2D";

/// Whether a layer of this class does nothing to a picture once a model is trained.
pub(super) fn is_passed_over(class: &str) -> bool {
    PASSED_OVER.split(' ').any(|passed| passed == class)
}
