#!/usr/bin/env bash
# Tests against other programs: mrcfile, gemmi and RELION verify what this program writes, reads and reconstructs. Each test
# makes its data from the built-in phantom and prints one line: "ok: ...", "skipped: ..." or "FAILED: ...".
#
#   tests/judges/run.sh [NAME...]     all, or some of: files atoms reconstruct export train voxels refine optics project postprocess mask correction sharpening
#
# CRYOSPLAT names the program to test (default: target/debug/cryosplat-mpi). KEEP=1 keeps the data.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

program=$(realpath "${CRYOSPLAT:-target/debug/cryosplat-mpi}")
[ -x "$program" ] || stop "$program is not there: cargo build"
names=("$@")
[ "$#" -gt 0 ] || names=(files atoms reconstruct export train voxels refine optics project postprocess mask correction sharpening)

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    say "skipped: all tests against other programs: python3 with venv is missing"
    exit 0
fi
if ! make_venv target/judges-venv tests/judges/requirements.txt; then
    say "skipped: all tests against other programs: pip could not install $(requirement_names tests/judges/requirements.txt)"
    exit 0
fi
python=$(realpath --no-symlinks target/judges-venv/bin/python)
maps=$(realpath tests/judges/maps.py)
atoms=$(realpath tests/judges/atoms.py)
expand=$(realpath tests/judges/expand.py)
optics=$(realpath tests/judges/optics.py)

mkdir -p target
make_work "$PWD/target/judges.XXXXXX"
cd "$work"

pixel_size=6
quiet() {
    # Prints only failures.
    if ! "$@" >command.log 2>&1 </dev/null; then
        say "wrong: command failed: $*"
        cat command.log
        return 1
    fi
}
ours() { quiet "$program" --log-level warn "$@"; }
simulate() { ours simulate --phantom --box 48 --pixel-size "$pixel_size" --particles 2000 --seed 3 "$@"; }
# relion_reconstruct finds images from the folder it runs in.
reconstruct() { (cd "$1" && quiet relion_reconstruct --i particles.star --o relion.mrc --ctf); }

# The first test that needs shared data makes it.
noisy_set() { [ -d noisy ] || simulate --star noisy -o noisy.h5 --snr 1; }
clean_set() { [ -d clean ] || simulate --star clean -o clean.h5 --no-noise; }
# Half maps by RELION whose FSC falls to zero well before Nyquist, and a mask for them.
halves() {
    [ -f halves/mask.mrc ] && return
    ours simulate --phantom --box 64 --pixel-size 3 --particles 4000 --seed 3 --star halves -o halves.h5 --snr 0.3
    local half
    for half in 1 2; do
        (cd halves && quiet relion_reconstruct --i particles.star --o "half$half.mrc" --ctf --subset "$half")
    done
    ours fsc halves/half1.mrc halves/half2.mrc --mask auto --mask-output halves/mask.mrc
}
noisy_run() {
    [ -f run/run.json ] && return
    noisy_set
    ours import noisy/particles.star -o imported.h5
    quiet run_ranks 2 "$program" train imported.h5 -o run --gaussians 2000 --epochs 10 --seed 1
}

# mrcfile accepts every file, with its pixel size.
judge_files() {
    noisy_run
    ours export star imported.h5 -o exported.star
    "$python" "$maps" files --pixel-size "$pixel_size" noisy/particles.mrcs noisy/truth.mrc noisy_truth.mrc \
        run/half1.mrc run/half2.mrc run/map.mrc exported.mrcs
    ours voxelize run/gmm_half1.h5 -o other.mrc --box 61 --pixel-size 4.5
    "$python" "$maps" files --pixel-size 4.5 other.mrc
}

# gemmi reads the pseudo-atoms of a mixture; a map computed from their positions, occupancies and displacements equals that of the
# mixture, in another box with pixels smaller than the Gaussians.
judge_atoms() {
    noisy_run
    ours voxelize run/gmm_half1.h5 -o fine.mrc --box 181 --pixel-size 1.5
    local name
    for name in atoms.pdb atoms.cif; do
        ours export gmm run/gmm_half1.h5 -o "$name" --map fine.mrc
        "$python" "$atoms" "$name" fine.mrc --above 0.99
    done
}

# RELION reconstructs the true map from a simulated STAR file: hand, origin, poses, shifts, CTF and contrast follow its conventions.
judge_reconstruct() {
    clean_set
    reconstruct clean
    "$python" "$maps" agree clean/relion.mrc clean/truth.mrc --to 15 --above 0.99
}

# RELION reconstructs the true map from an exported set too: centred images, poses, CTFs and contrast.
judge_export() {
    clean_set
    mkdir -p exported
    ours import clean/particles.star -o centred.h5 --no-normalize
    ours export star centred.h5 -o exported/particles.star
    reconstruct exported
    "$python" "$maps" agree exported/relion.mrc clean/truth.mrc --to 15 --above 0.99
}

# From the same noisy STAR file, import and train make the same map as RELION.
judge_train() {
    noisy_run
    reconstruct noisy
    "$python" "$maps" agree run/map.mrc noisy/relion.mrc --to 20 --above 0.95
}

# From the same noisy STAR file, backproject makes a map as good as RELION's, shell by shell.
judge_voxels() {
    noisy_set
    [ -f noisy/relion.mrc ] || reconstruct noisy
    ours import noisy/particles.star -o raw.h5 --no-normalize
    quiet run_ranks 2 "$program" backproject raw.h5 -o voxels --no-wiener
    "$python" "$maps" beside noisy/truth.mrc voxels/map.mrc noisy/relion.mrc --within 0.005
}

# From poses and shifts that are wrong, a run refines. RELION makes the same map of its STAR file as backproject of its particle file,
# and a better one than of the wrong values.
judge_refine() {
    ours simulate --phantom --box 48 --pixel-size "$pixel_size" --particles 1000 --seed 3 --snr 0.5 --pose-error 4 --shift-error 1.5 \
        --defocus-error 300 --star wrong -o right.h5
    ours import wrong/particles.star -o wrong.h5
    ours train wrong.h5 -o refining --refine all --gaussians 1000 --seed 1
    ours export star wrong.h5 -o wrong/refined.star --original wrong/particles.star --run refining
    ours export particles wrong.h5 -o refined.h5 --run refining
    ours backproject refined.h5 -o refined --no-wiener
    (cd wrong && quiet relion_reconstruct --i refined.star --o refined.mrc --ctf)
    reconstruct wrong
    "$python" "$maps" better wrong/truth.mrc wrong/refined.mrc wrong/relion.mrc --by 0.05
    "$python" "$maps" beside wrong/truth.mrc refined/map.mrc wrong/refined.mrc --within 0.005
}

# beside_relion SET.star [OPTION...]: from the same STAR file in the folder optics, backproject makes a map as good as RELION's.
beside_relion() {
    local set=${1%.star}
    shift
    (cd optics && quiet relion_reconstruct --i "$set.star" --o "$set.theirs.mrc" --ctf "$@")
    ours import "optics/$set.star" -o "optics/$set.h5" --no-normalize
    quiet run_ranks 2 "$program" backproject "optics/$set.h5" -o "optics/$set" --no-wiener
    "$python" "$maps" beside optics/truth.mrc "optics/$set/map.mrc" "optics/$set.theirs.mrc" --within 0.005
}
# projected_set NAME [LABEL=VALUE...] [-- OPTION...]: images projected by RELION with these columns in their optics table. RELION
# applies all but the odd aberrations, which optics.py applies.
projected_set() {
    local name=$1
    local columns=()
    shift
    while [ "$#" -gt 0 ] && [ "$1" != -- ]; do
        columns+=("$1")
        shift
    done
    [ "$#" -eq 0 ] || shift
    (
        cd optics
        "$python" "$optics" columns particles.star "$name.star" "${columns[@]}"
        quiet relion_project --i truth.mrc --o projected --ang "$name.star" --angpix 3 "$@"
        mv projected.mrcs "$name.mrcs"
        sed -i "s/@particles.mrcs/@$name.mrcs/" "$name.star"
        "$python" "$optics" odd "$name.star"
    )
}

# Beam tilt, Zernike coefficients, anisotropic magnification, phase flips, premultiplied images and optics groups of unlike pixels.
judge_optics() {
    local tilt=(rlnBeamTiltX=20 rlnBeamTiltY=-12)
    local odd=("rlnOddZernike=[1.5,-2,120,-60,80,150]")
    local even=("rlnEvenZernike=[-0.1,4,-3,5,120,-80,60,-90,70]")
    local magnified=(rlnMagMat00=1.02 rlnMagMat01=0.006 rlnMagMat10=-0.004 rlnMagMat11=0.985)
    quiet "$program" --log-level warn simulate --phantom --box 48 --pixel-size 3 --particles 600 --seed 3 --star optics \
        -o optics.h5 --no-noise
    projected_set tilt "${tilt[@]}" -- --ctf
    beside_relion tilt.star
    projected_set odd "${odd[@]}" -- --ctf
    beside_relion odd.star
    projected_set even "${even[@]}" -- --ctf
    beside_relion even.star
    projected_set magnified "${magnified[@]}" -- --ctf
    beside_relion magnified.star
    projected_set together "${tilt[@]}" "${odd[@]}" "${even[@]}" "${magnified[@]}" -- --ctf
    beside_relion together.star
    projected_set flipped rlnCtfDataArePhaseFlipped=1 -- --ctf --ctf_phase_flip
    beside_relion flipped.star --ctf_phase_flipped
    projected_set premultiplied rlnCtfDataAreCtfPremultiplied=1 -- --ctf --ctf2
    beside_relion premultiplied.star
    (
        cd optics
        # In another field of view, RELION gives the images another weight.
        quiet relion_image_handler --i particles.mrcs --o coarse.mrcs --angpix 3 --rescale_angpix 3.6
        "$python" "$optics" second particles.star second.star coarse.mrcs 3.6 40
    )
    beside_relion second.star
}

# Particles of symmetric specimens: backproject makes the map of relion_reconstruct --sym for groups that permute the axes of the
# grid, and of the particles expanded by RELION's operators for others, where --sym interpolates its sums once more.
judge_symmetry() {
    local group
    for group in C4 O D7 T; do
        ours simulate --phantom --box 48 --pixel-size "$pixel_size" --particles 300 --seed 3 --snr 1 --symmetry "$group" \
            --star "sym$group" -o "sym$group.h5"
        ours import "sym$group/particles.star" -o "raw$group.h5" --no-normalize
        ours backproject "raw$group.h5" -o "voxels$group" --no-wiener --symmetry "$group"
        (
            cd "sym$group"
            case "$group" in
                C4 | O) quiet relion_reconstruct --i particles.star --o relion.mrc --ctf --sym "$group" ;;
                *)
                    "$python" "$expand" particles.star "$group" expanded.star
                    quiet relion_reconstruct --i expanded.star --o relion.mrc --ctf
                    ;;
            esac
        )
        "$python" "$maps" beside "sym$group/truth.mrc" "voxels$group/map.mrc" "sym$group/relion.mrc" --within 0.005
    done
}

# Images projected by RELION from a map, with CTF and shifts, reconstruct that map.
judge_project() {
    clean_set
    (cd clean && quiet relion_project --i truth.mrc --o projected --ang particles.star --ctf --angpix "$pixel_size")
    # The images have no noise, so their background cannot be used for normalisation.
    ours import clean/projected.star -o projected.h5 --no-normalize
    ours train projected.h5 -o projected --gaussians 2000 --epochs 5 --half all --seed 1
    "$python" "$maps" agree projected/map.mrc clean/truth.mrc --to 15 --above 0.95
}

# relion_postprocess reads the half maps and their pixel size unchanged and computes the same FSC, masked and unmasked.
judge_postprocess() {
    noisy_run
    "$python" "$maps" sphere run/half1.mrc mask.mrc
    # It does not create its output folder, and fails without a mask.
    mkdir -p post
    quiet relion_postprocess --i run/half1.mrc --i2 run/half2.mrc --o post/post --mask mask.mrc
    ours fsc run/half1.mrc run/half2.mrc --mask mask.mrc -o masked
    # The two programs may assign single Fourier values on the edge of a shell differently.
    "$python" "$maps" curves post/post.star --within 0.01 \
        --column run/fsc.csv "half maps" _rlnFourierShellCorrelationUnmaskedMaps \
        --column masked.csv "masked" _rlnFourierShellCorrelationMaskedMaps
}

# relion_mask_create makes the same mask from the mean of the half maps, with the same filter and threshold.
judge_mask() {
    halves
    quiet relion_image_handler --i halves/half1.mrc --add halves/half2.mrc --o halves/sum.mrc
    quiet relion_image_handler --i halves/sum.mrc --multiply_constant 0.5 --o halves/mean.mrc
    quiet relion_mask_create --i halves/mean.mrc --o halves/theirs.mrc --angpix 3 --lowpass 15 --ini_threshold 0.11 \
        --extend_inimask 3 --width_soft_edge 6
    ours fsc halves/half1.mrc halves/half2.mrc --mask auto --threshold 0.11 --components all \
        --mask-output halves/ours.mrc
    "$python" "$maps" same halves/ours.mrc halves/theirs.mrc
}

# The masked FSC, corrected by phase randomisation, is that of relion_postprocess. In so small a box, a single draw of phases varies
# the corrected FSC by 0.02, so means over many draws of each program are compared.
judge_correction() {
    halves
    local seed
    for seed in $(seq 96); do
        mkdir -p "halves/seed$seed"
        quiet relion_postprocess --i halves/half1.mrc --i2 halves/half2.mrc --o "halves/seed$seed/post" \
            --mask halves/mask.mrc --random_seed "$seed"
    done
    ours fsc halves/half1.mrc halves/half2.mrc --mask halves/mask.mrc --draws 200 -o halves/corrected
    "$python" "$maps" curves halves/seed*/post.star --within 0.01 \
        --column halves/corrected.csv corrected _rlnFourierShellCorrelationCorrected \
        --column halves/corrected.csv masked _rlnFourierShellCorrelationMaskedMaps \
        --column halves/corrected.csv "no mask" _rlnFourierShellCorrelationUnmaskedMaps
}

# The same half maps, mask, range of the fit and filter give the same B factor and map as relion_postprocess.
judge_sharpening() {
    halves
    mkdir -p halves/post
    quiet relion_postprocess --i halves/half1.mrc --i2 halves/half2.mrc --o halves/post/post --mask halves/mask.mrc \
        --auto_bfac --autob_lowres 15 --autob_highres 8.5 --low_pass 8 --random_seed 1
    ours postprocess halves/half1.mrc halves/half2.mrc --mask halves/mask.mrc --fit-from 15 --fit-to 8.5 --low-pass 8 \
        -o halves/ours
    "$python" "$maps" files --pixel-size 3 halves/ours.mrc halves/ours_masked.mrc halves/ours_mask.mrc
    "$python" "$maps" agree halves/ours.mrc halves/post/post.mrc --to 8 --above 0.99
    "$python" "$maps" agree halves/ours_masked.mrc halves/post/post_masked.mrc --to 8 --above 0.99
    "$python" "$maps" sharpening halves/post/post.star halves/ours.json
}

describe() {
    case "$1" in
        files) echo "mrcfile accepts stacks, truth and maps" ;;
        atoms) echo "gemmi: pseudo-atoms reproduce the map of their mixture" ;;
        reconstruct) echo "relion_reconstruct: the true map from a simulated STAR file" ;;
        export) echo "relion_reconstruct: the true map from an exported STAR file" ;;
        train) echo "relion_reconstruct: the same map as import and train" ;;
        voxels) echo "relion_reconstruct: the same map as backproject" ;;
        refine) echo "relion_reconstruct: the same map of refined particles as backproject" ;;
        optics) echo "relion_reconstruct: the same maps as backproject with aberrations and unlike optics groups" ;;
        symmetry) echo "relion_reconstruct: the same maps as backproject --symmetry" ;;
        project) echo "relion_project: its projections reconstruct their map" ;;
        postprocess) echo "relion_postprocess: the same FSC from the half maps" ;;
        mask) echo "relion_mask_create: the same automatic mask" ;;
        correction) echo "relion_postprocess: the same correction of the masked FSC" ;;
        sharpening) echo "relion_postprocess: the same sharpened map" ;;
        *) stop "no test is named $1" ;;
    esac
}

failed=0
for name in "${names[@]}"; do
    description=$(describe "$name")
    if [ "$name" != files ] && [ "$name" != atoms ] && ! command -v relion_reconstruct >/dev/null; then
        say "skipped: $description: RELION is missing"
        continue
    fi
    # A separate shell, so that a failure ends this test only ("if ! judge" would continue after a failed line).
    set +e
    (
        set -e
        "judge_$name"
    ) >judge.log 2>&1
    code=$?
    set -e
    if [ "$code" -eq 0 ]; then
        say "ok: $description: $(tail -n 1 judge.log)"
    else
        cat judge.log
        say "FAILED: $description"
        failed=$((failed + 1))
    fi
done
[ "$failed" -eq 0 ]
