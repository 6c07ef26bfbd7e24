# Requests and files without a bound, and what others may plant. Sourced by benches/faults.sh.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of benches/faults.sh
title="Sizes without a bound, and planted code"

# sparse_map FILE SIZE: a map of SIZE voxels along each edge whose file is a hole.
sparse_map() {
    head -c 1024 "$sets/truth.mrc" >"$1"
    local bytes
    bytes=$(printf '\\x%02x\\x%02x\\0\\0' $(($2 % 256)) $(($2 / 256)))
    # shellcheck disable=SC2059
    printf "$bytes$bytes$bytes" | dd of="$1" conv=notrunc status=none
    truncate -s $((1024 + 4 * $2 * $2 * $2)) "$1"
}

sparse_maps() {
    sparse_map a.mrc 1500
    "$program" "$@"
}

# little_memory COMMAND...: with 4 GiB of address space, whatever the machine has.
little_memory() (
    ulimit -v 4194304
    "$@"
)

many_columns() {
    {
        printf 'data_particles\nloop_\n'
        seq -f '_column%.0f' 1000000
        yes 1 | head -n 1000000 | tr '\n' ' '
    } >p.star
    "$program" import p.star -o p.h5
}

long_line() {
    printf 'data_particles\nloop_\n_x\n' >p.star
    head -c 1073741824 /dev/zero | tr '\0' x >>p.star
    "$program" import p.star -o p.h5
}

many_indices() {
    # A list of integers in the text protocol of pickles.
    awk 'BEGIN { printf "(lp0\n"; for (i = 0; i < 10000000; i++) printf "I1\na"; printf "." }' >ind.pkl
    "$program" import "$sets/particles.mrcs" -o p.h5 --poses ind.pkl --no-ctf --ind ind.pkl
}

# A mixture of a good Gaussian and one of 1e9 boxes.
runaway() {
    cat >runaway.ply <<'PLY'
ply
format ascii 1.0
element vertex 2
property float x
property float y
property float z
property float nx
property float ny
property float nz
property float amplitude
property float scale_0
property float scale_1
property float scale_2
property float rot_0
property float rot_1
property float rot_2
property float rot_3
end_header
0.0 0.1 0.0 0 0 0 -2 -3 -3 -3 1 0 0 0
0.1 0.0 0.0 0 0 0 1 1e9 -3 1e9 0.9 0.1 0.2 0.3
PLY
}

voxelized_runaway() {
    runaway
    "$program" voxelize runaway.ply -o map.mrc --box 128 --pixel-size 1
}

trained_runaway() {
    runaway
    "$program" train "$sets/p.h5" -o run --device cpu --threads 1 --init runaway.ply --epochs 1 --learning-rate 1e-6
}

# checked ARGUMENTS: `check`, and the last problem of its page.
checked() {
    local code=0
    "$program" check "$@" >page || code=$?
    sed -n 's/^problem  */error: /p' page | tail -n 1
    return "$code"
}

keep "$sets/p.h5" "$sets/truth.mrc"
fault "50,000,000 Gaussians in a box of 32 px" "$program" train "$sets/p.h5" -o run --device cpu --gaussians 50000000
fault "1000 mixtures of 60,000 Gaussians, 4 GiB of memory" little_memory "$program" train "$sets/p.h5" -o run --device cpu \
    --threads 1 --gaussians 60000 --mixtures 1000 --epochs 1000
fault "a batch of 1,000,000 images of 512 px, 4 GiB of memory" little_memory "$program" bench --device cpu --threads 1 --box 512 \
    --batch 1000000 --gaussians 100
fault "\`fsc\` of maps of 1500 voxels an edge in sparse files" little_memory sparse_maps fsc a.mrc a.mrc -o fsc
fault "such a map as the truth of a training" little_memory sparse_maps train "$sets/p.h5" -o run --truth a.mrc --device cpu --threads 1
fault "\`voxelize\` on 1000 voxels an edge, 4 GiB of memory" little_memory "$program" voxelize "$sets/run/gmm_half1.h5" -o m.mrc --box 1000 \
    --pixel-size 1
fault "\`voxelize\` on 100,000 voxels an edge" "$program" voxelize "$sets/run/gmm_half1.h5" -o m.mrc --box 100000
fault "\`voxelize\` of a Gaussian of 1e9 boxes" voxelized_runaway
fault "a training with a Gaussian of 1e9 boxes" trained_runaway
fault "\`simulate\` of 10,000,000 images of 128 px on a smaller disk" "$program" simulate --phantom -o s.h5 -n 10000000 --box 128 --pixel-size 2
fault "\`--threads 100000\`" "$program" train "$sets/p.h5" -o run --device cpu --threads 100000
fault "a STAR file of 1,000,000 columns" many_columns
fault "a STAR file with a line of 1 GiB" long_line
fault "\`--ind\` with 10,000,000 repeats" many_indices
fault "\`check\` of a folder that cannot be written and a damaged particle file" checked "$sets/particles.mrcs" -o /proc
