//! LLVM's intrinsics for NVPTX. LLVM treats those that lanes execute together as `convergent`; on this
//! target it does not treat inline assembly so.

unsafe extern "unadjusted" {
    #[link_name = "llvm.trap"]
    pub fn trap() -> !;

    #[link_name = "llvm.nvvm.read.ptx.sreg.tid.x"]
    pub safe fn tid_x() -> i32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.tid.y"]
    pub safe fn tid_y() -> i32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.tid.z"]
    pub safe fn tid_z() -> i32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.ntid.x"]
    pub safe fn ntid_x() -> i32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.ntid.y"]
    pub safe fn ntid_y() -> i32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.ntid.z"]
    pub safe fn ntid_z() -> i32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.ctaid.x"]
    pub safe fn ctaid_x() -> i32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.ctaid.y"]
    pub safe fn ctaid_y() -> i32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.ctaid.z"]
    pub safe fn ctaid_z() -> i32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.nctaid.x"]
    pub safe fn nctaid_x() -> i32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.nctaid.y"]
    pub safe fn nctaid_y() -> i32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.nctaid.z"]
    pub safe fn nctaid_z() -> i32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.laneid"]
    pub safe fn laneid() -> i32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.lanemask.lt"]
    pub safe fn lanemask_lt() -> i32;

    #[link_name = "llvm.nvvm.barrier.cta.sync.aligned.all"]
    pub fn barrier_sync(id: i32);
    #[link_name = "llvm.nvvm.barrier.cta.sync.aligned.count"]
    pub fn barrier_sync_count(id: i32, threads: i32);
    #[link_name = "llvm.nvvm.barrier.cta.red.and.aligned.all"]
    pub fn barrier_red_and(id: i32, predicate: bool) -> bool;
    #[link_name = "llvm.nvvm.barrier.cta.red.or.aligned.all"]
    pub fn barrier_red_or(id: i32, predicate: bool) -> bool;
    #[link_name = "llvm.nvvm.barrier.cta.red.popc.aligned.all"]
    pub fn barrier_red_popc(id: i32, predicate: bool) -> i32;
    #[link_name = "llvm.nvvm.bar.warp.sync"]
    pub fn bar_warp_sync(mask: i32);
    #[link_name = "llvm.nvvm.membar.cta"]
    pub fn membar_cta();
    #[link_name = "llvm.nvvm.membar.gl"]
    pub fn membar_gl();
    #[link_name = "llvm.nvvm.membar.sys"]
    pub fn membar_sys();

    #[link_name = "llvm.nvvm.shfl.sync.bfly.i32"]
    pub fn shfl_sync_bfly(mask: i32, value: i32, lane: i32, clamp: i32) -> i32;
    #[link_name = "llvm.nvvm.shfl.sync.down.i32"]
    pub fn shfl_sync_down(mask: i32, value: i32, lane: i32, clamp: i32) -> i32;
    #[link_name = "llvm.nvvm.shfl.sync.up.i32"]
    pub fn shfl_sync_up(mask: i32, value: i32, lane: i32, clamp: i32) -> i32;
    #[link_name = "llvm.nvvm.shfl.sync.idx.i32"]
    pub fn shfl_sync_idx(mask: i32, value: i32, lane: i32, clamp: i32) -> i32;
    #[link_name = "llvm.nvvm.vote.all.sync"]
    pub fn vote_all_sync(mask: i32, predicate: bool) -> bool;
    #[link_name = "llvm.nvvm.vote.any.sync"]
    pub fn vote_any_sync(mask: i32, predicate: bool) -> bool;
    #[link_name = "llvm.nvvm.vote.ballot.sync"]
    pub fn vote_ballot_sync(mask: i32, predicate: bool) -> i32;
    #[link_name = "llvm.nvvm.match.any.sync.i32"]
    pub fn match_any_sync(mask: i32, value: i32) -> i32;
    #[link_name = "llvm.nvvm.activemask"]
    pub fn activemask() -> i32;

    #[link_name = "llvm.nvvm.idp4a.s.s"]
    pub safe fn idp4a_s_s(a: i32, b: i32, c: i32) -> i32;
    #[link_name = "llvm.nvvm.idp4a.s.u"]
    pub safe fn idp4a_s_u(a: i32, b: i32, c: i32) -> i32;
    #[link_name = "llvm.nvvm.idp4a.u.s"]
    pub safe fn idp4a_u_s(a: i32, b: i32, c: i32) -> i32;
    #[link_name = "llvm.nvvm.idp4a.u.u"]
    pub safe fn idp4a_u_u(a: i32, b: i32, c: i32) -> i32;
    #[link_name = "llvm.nvvm.prmt"]
    pub safe fn prmt(a: i32, b: i32, selector: i32) -> i32;

    #[link_name = "llvm.fma.f32"]
    pub safe fn fma_f32(a: f32, b: f32, c: f32) -> f32;
    #[link_name = "llvm.sqrt.f32"]
    pub safe fn sqrt_f32(x: f32) -> f32;
    #[link_name = "llvm.rint.f32"]
    pub safe fn rint_f32(x: f32) -> f32;
    #[link_name = "llvm.floor.f32"]
    pub safe fn floor_f32(x: f32) -> f32;
    #[link_name = "llvm.ceil.f32"]
    pub safe fn ceil_f32(x: f32) -> f32;
    #[link_name = "llvm.trunc.f32"]
    pub safe fn trunc_f32(x: f32) -> f32;
    #[link_name = "llvm.nvvm.ex2.approx.f"]
    pub safe fn ex2_approx_f32(x: f32) -> f32;
    #[link_name = "llvm.nvvm.lg2.approx.f"]
    pub safe fn lg2_approx_f32(x: f32) -> f32;
}

/// The return value of an intrinsic with two results.
#[repr(C)]
pub struct Two(pub i32, pub i32);

/// The return value of an intrinsic with four results.
#[cfg(target_feature = "sm_80")]
#[repr(C)]
pub struct Four(pub i32, pub i32, pub i32, pub i32);

unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.mma.m8n8k16.row.col.u8.s8"]
    pub fn mma_m8n8k16_u8_s8(a: i32, b: i32, c0: i32, c1: i32) -> Two;
}

#[cfg(target_feature = "sm_80")]
unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.mma.m16n8k32.row.col.u8.s8"]
    pub fn mma_m16n8k32_u8_s8(
        a0: i32,
        a1: i32,
        a2: i32,
        a3: i32,
        b0: i32,
        b1: i32,
        c0: i32,
        c1: i32,
        c2: i32,
        c3: i32,
    ) -> Four;
}

#[cfg(target_feature = "sm_80")]
unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.redux.sync.add"]
    pub fn redux_sync_add(value: i32, mask: i32) -> i32;
    #[link_name = "llvm.nvvm.redux.sync.min"]
    pub fn redux_sync_min(value: i32, mask: i32) -> i32;
    #[link_name = "llvm.nvvm.redux.sync.max"]
    pub fn redux_sync_max(value: i32, mask: i32) -> i32;
    #[link_name = "llvm.nvvm.redux.sync.umin"]
    pub fn redux_sync_umin(value: i32, mask: i32) -> i32;
    #[link_name = "llvm.nvvm.redux.sync.umax"]
    pub fn redux_sync_umax(value: i32, mask: i32) -> i32;
    #[link_name = "llvm.nvvm.redux.sync.and"]
    pub fn redux_sync_and(value: i32, mask: i32) -> i32;
    #[link_name = "llvm.nvvm.redux.sync.or"]
    pub fn redux_sync_or(value: i32, mask: i32) -> i32;
    #[link_name = "llvm.nvvm.redux.sync.xor"]
    pub fn redux_sync_xor(value: i32, mask: i32) -> i32;
}

#[cfg(target_feature = "sm_90")]
unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.griddepcontrol.wait"]
    pub fn griddepcontrol_wait();
    #[link_name = "llvm.nvvm.griddepcontrol.launch.dependents"]
    pub fn griddepcontrol_launch_dependents();
}
