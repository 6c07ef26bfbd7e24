//! Structures that the host shares with the kernels: records in device memory, and the arguments of each kernel.
//!
//! src/render/cuda/interface.rs declares the same structures; a test there compares names, offsets and sizes. A kernel takes its
//! arguments as one structure by value. Shapes: `gaussian` counts the Gaussians padded to a multiple of PADDING (`padded`),
//! `count` those of the mixture; `splat` counts the splats of an image (`splats_per_image`), view after view, each padded to a
//! multiple of 32, and all to one of PADDING; `image` counts the images of a pass, `operator` and `view` the VIEWS operators of the
//! point group.
#pragma once

/// One image of a pass.
struct ImageRecord {
    /// The matrix from volume to view: the pose W, whose first two rows may be multiplied by a magnification.
    double view[9];
    /// Where the image shows the specimen's origin: (x, y) in pixels from pixel floor(BOX / 2).
    double offset[2];
    /// CTF: H = scale exp(-B/4) sin(gamma), with gamma = phase + xx kx^2 + xy kx ky + yy ky^2 + quartic k^4 + x3y kx^3 ky +
    /// x2y2 kx^2 ky^2 + xy3 kx ky^3 + y4 ky^4.
    double phase, xx, xy, yy, quartic, x3y, x2y2, xy3, y4;
    /// B = b_factor k^2 + b_xy kx ky + b_yy ky^2.
    double b_factor, b_xy, b_yy, scale;
    /// H is 0 where limit2 k^2 > 1: the square of the images' resolution limit, or 0.
    double limit2;
    /// Derivative of gamma with respect to the defocus in 1000 A: coefficients of kx^2, kx ky and ky^2.
    double slope[3];
    /// Sum of the squared pixels of the observed image.
    double energy;
    /// Index of its target among the resident particles, or -1 - (index of the target's first value among the staged images).
    long long place;
    /// Factor of the image beside the CTF, and weight of the particle in the loss.
    float contrast, weight;
    /// Index of its noise weights.
    unsigned noise_group;
    /// 1 if the observed image is already multiplied by its CTF.
    unsigned premultiplied;
};
static_assert(sizeof(ImageRecord) == 256, "as on the host");

/// A pass over some images, and the numbers of its step. The images follow it in memory.
struct PassRecord {
    /// Images of the pass.
    unsigned images;
    /// 1 in the first pass of a step.
    unsigned first;
    /// 1 in the last pass of a step.
    unsigned last;
    /// Index of the step's OutcomeRecord.
    unsigned outcome;
    /// Learning rate, with Adam's bias corrections.
    float rate;
    /// Decay of the first and second moments.
    float beta1, beta2;
    /// 1 - beta1 and 1 - beta2.
    float fresh1, fresh2;
    /// Adam's epsilon, with the bias correction.
    float epsilon;
    /// 1 / images of the step, over all ranks.
    float scale;
    /// Factors on the rate of means, scales, quaternions and amplitudes.
    float factors[4];
    unsigned reserved;
};
static_assert(sizeof(PassRecord) == 64, "as on the host, and a multiple of ImageRecord's alignment");

/// Header of the ring of passes, which follow it in memory. The host fills a place long before it is used. The kernels advance by
/// themselves: `project` copies `next` to `current`, `draw` increments `next`, and neither is read by the kernel that writes it.
struct RingRecord {
    /// Number of the pass that runs next.
    unsigned next;
    /// Number of the pass that runs.
    unsigned current;
    /// Bytes from one pass to the next.
    unsigned pitch;
    unsigned reserved;
};
static_assert(sizeof(RingRecord) == 16, "as on the host");

/// Outcome of a step.
struct OutcomeRecord {
    /// Euclidean norm of the gradient, summed over the images of all ranks.
    double norm;
    /// Loss, summed over the images of all ranks.
    float loss;
    /// 1 if the optimiser applies the step.
    unsigned applied;
};
static_assert(sizeof(OutcomeRecord) == 16, "as on the host");

/// The best offset of an image at a rotation.
struct FoundRecord {
    /// Gain of the offset: <X, Y> - <X, X> / 2, less the penalty of the offset.
    double gain;
    /// Steps of the offset along x and y.
    int x, y;
};
static_assert(sizeof(FoundRecord) == 16, "as on the host");

/// One Gaussian seen in one image; lengths in grid spacings. At column i and row j of its support, with p = p0 + w0 i + w1 j and
/// q = q0 + w2 j, its value is weight 2^-(p^2 + q^2).
struct __align__(16) Splat {
    float p0, q0, w0, w1;
    float w2, weight;
    /// First column | first row << 16 of the support.
    unsigned corner;
    /// Columns | rows << 16 of the support; 0 columns: the Gaussian is not visible.
    unsigned size;
    /// Where `fine`, p0, w0 and w1 are multiples of 2^-12 and these are their low-order parts: the terms of a thin splat that lies
    /// across the axes are large and cancel, and sums of such multiples are exact.
    float p0_low, w0_low, w1_low;
    unsigned fine;
};
static_assert(sizeof(Splat) == 48, "as on the host");

/// Arguments of `activate`.
struct ActivateArguments {
    const float *parameters;  // [plane][count]
    double *activated;        // [plane][gaussian]
    int count;
    int padded;
};
static_assert(sizeof(ActivateArguments) == 24, "as on the host");

/// Arguments of `project`.
struct ProjectArguments {
    RingRecord *ring;
    const double *activated;  // [plane][gaussian]
    const double *operators;  // [operator][3][3]; identity first
    double *views;            // [image][view][2][3]: first two rows of W times the operator, where VIEWS > 1
    Splat *splats;            // [image][splat]
    double *whitening;        // [image][w0 w1 w2][splat]
    unsigned *bits;           // [image][tile][splat / 32]
    int count;
    int padded;
};
static_assert(sizeof(ProjectArguments) == 64, "as on the host");

/// Arguments of `draw`.
struct DrawArguments {
    RingRecord *ring;
    const Splat *splats;   // [image][splat]
    const unsigned *bits;  // [image][tile][splat / 32]
    float *projections;    // [image][GRID][GRID]
    float *slices;         // [image][tile][slice][TILE][TILE], where DRAW_SLICES > 1
    unsigned *tickets;     // [image][tile]: slices that are drawn, 0 between launches
    int splats_per_image;
    int reserved;
};
static_assert(sizeof(DrawArguments) == 56, "as on the host");

/// Arguments of `prepare`.
struct PrepareArguments {
    const RingRecord *ring;
    const float2 *spectra;  // [image][BOX][COLUMNS], not normalised
    float *targets;         // [image][BOX][BOX]
};
static_assert(sizeof(PrepareArguments) == 24, "as on the host");

/// Arguments of `store_half`.
struct StoreHalfArguments {
    const float *targets;      // [length]
    unsigned short *resident;  // [length], IEEE half precision
    unsigned long long length;
};
static_assert(sizeof(StoreHalfArguments) == 24, "as on the host");

/// Arguments of `residual` and `compare`.
struct ResidualArguments {
    const RingRecord *ring;
    float2 *spectra;         // [image][GRID][GRID_COLUMNS], not normalised
    const float *transfer;   // [BOX][COLUMNS]: factor of the sampling on H
    const float *weights;    // [BOX][COLUMNS]
    const float *noise;      // [noise group][SHELLS]: weights by the noise
    const void *resident;    // [particle][BOX][BOX] targets, f16 where KEPT_HALF, else f32; may be null
    const float *staged;     // [staging buffer][image][BOX][BOX] targets; may be null
    double *partial_losses;  // [image][block], of `residual`
    double *comparisons;     // [image][block][power overlap], of `compare`
    double frequency_step;   // 1 / (box x pixel size), in 1/A
};
static_assert(sizeof(ResidualArguments) == 80, "as on the host");

/// Arguments of `fit`. Frequencies are those of one of each Friedel pair below `limit` cycles per box.
struct FitArguments {
    const RingRecord *ring;
    const float2 *reference;  // [z][y][x]: coefficients of the reference (src/render/reference.rs)
    const int *places;        // [frequency][kx ky]
    const float *noise;       // [noise group][SHELLS]: weights by the noise
    const void *resident;     // [particle][BOX][BOX] targets, f16 where KEPT_HALF, else f32; may be null
    const float *staged;      // [staging buffer][image][BOX][BOX] targets; may be null
    double *sums;             // [image][block][FIT_SUMS]
    double frequency_step;    // 1 / (box x pixel size), in 1/A
    int limit;
    int frequencies;
};
static_assert(sizeof(FitArguments) == 72, "as on the host");

/// Arguments of `observe` and `search`, whose frequencies are below a limit of their own. `rotation` counts those of a launch.
struct SearchArguments {
    const RingRecord *ring;
    const float2 *reference;  // [z][y][x]: coefficients of the reference (src/render/reference.rs)
    const int *places;        // [frequency][kx ky], by kx
    const int *lines;         // [limit + 1]: first frequency of each kx, and their number
    const float *noise;       // [noise group][SHELLS]: weights by the noise
    const void *resident;     // [particle][BOX][BOX] targets, f16 where KEPT_HALF, else f32; may be null
    const float *staged;      // [staging buffer][image][BOX][BOX] targets; may be null
    float4 *images;           // [image][frequency]: w H Y (2), w H^2, 0
    const double *rotations;  // [rotation][3][3]: multiply the view from the left
    const float2 *phases;     // [step][2 limit - 1]: exp(2 pi i k step / BOX), for k from 1 - limit, steps from -radius
    FoundRecord *found;       // [image][rotation]
    double frequency_step;    // 1 / (box x pixel size), in 1/A
    double offset_penalty;    // per squared step
    int limit;
    int frequencies;
    int radius;
    int reference_limit;
};
static_assert(sizeof(SearchArguments) == 120, "as on the host");

/// Arguments of `moments`.
struct MomentsArguments {
    const RingRecord *ring;
    const Splat *splats;    // [image][splat]
    const float *gradient;  // [image][GRID][GRID], of the projections' points
    float *moments;         // [image][moment][splat]
    int splats_per_image;
    int reserved;
};
static_assert(sizeof(MomentsArguments) == 40, "as on the host");

/// Arguments of `chain`.
struct ChainArguments {
    const RingRecord *ring;
    const double *activated;       // [plane][gaussian]
    const double *views;           // [image][view][2][3], where VIEWS > 1
    const double *whitening;       // [image][w0 w1 w2][splat]
    const float *moments;          // [image][moment][splat]
    const float *parameters;       // [plane][count]
    double *sums;                  // [plane of activated][gaussian], over the passes of a step
    const double *partial_losses;  // [image][block of residual]
    double *loss;                  // [1], over the passes of a step
    float *gradient;               // [plane][count], then the loss
    int count;
    int padded;
};
static_assert(sizeof(ChainArguments) == 88, "as on the host");

/// Arguments of `outcome`.
struct OutcomeArguments {
    const RingRecord *ring;
    const float *gradient;    // [length], then the loss
    double *partial_norms;    // [block]
    unsigned *ticket;         // [1]: blocks that have ended, 0 between launches
    OutcomeRecord *outcomes;  // [outcome of a pass]
    unsigned *stopped;        // [1]: 1 from the first step on that is not finite
    unsigned long long length;
};
static_assert(sizeof(OutcomeArguments) == 56, "as on the host");

/// Arguments of `adam`.
struct AdamArguments {
    const RingRecord *ring;
    const float *gradient;    // [plane][count], summed over all ranks
    float *parameters;        // [plane][count]
    float *first;             // [plane][count], Adam's first moments
    float *second;            // [plane][count], Adam's second moments
    double *activated;        // [plane][gaussian]
    const unsigned *stopped;  // [1]
    int count;
    int padded;
};
static_assert(sizeof(AdamArguments) == 64, "as on the host");

/// Arguments of `checksum`.
struct ChecksumArguments {
    const float *values;      // [length]
    unsigned long long *sum;  // [1]
    unsigned long long length;
};
static_assert(sizeof(ChecksumArguments) == 24, "as on the host");
