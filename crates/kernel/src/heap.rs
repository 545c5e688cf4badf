//! How much memory a process keeps that it does not use (`mallopt(3)`, `malloc_trim(3)`).
//!
//! An agent reads the whole cluster once and keeps a small part of it. glibc gives each thread a heap of its own and keeps what was freed
//! in each, so that most of an agent's memory would be what it once needed.

/// Lets all threads share one heap. Call it before there are others. An agent's threads wait for the kernel and not for the allocator.
pub fn share_one() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number in the allocator, which takes its own lock; a value that it does not know changes nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives what is free back to the kernel.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: works on free memory only, under the allocator's own lock.
    unsafe {
        libc::malloc_trim(0);
    }
}
