//! The heap of the engine. It can be put back to the state that it had at a mark: so no message sees what
//! another left behind.
//!
//! The engine allocates here and nowhere else. Memory comes in segments. The mark keeps a copy of each segment
//! and of the allocator's own state; putting back copies them over. Segments that were taken after the mark
//! are kept for the next message.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;

use dlmalloc::{Allocator, Dlmalloc};

use crate::limits::HEAP_BYTES_MAX;

/// The step in which segments are taken: a page of WebAssembly.
const PAGE_BYTES: usize = 64 << 10;

/// Bits of the word before an allocation that are not part of its size: dlmalloc keeps flags there. Its version is pinned
/// by the lock file, and a test holds the sizes against those that were asked for.
const FLAG_BITS: usize = 7;

/// Bytes at the end of a segment in which the allocator keeps marks of its own.
const TAIL_BYTES: usize = 256;

/// A run of zeros at the end that is at least this long is left out of a copy.
const ZEROS_MIN: usize = 4 << 10;

/// A heap.
pub struct Heap {
    allocator: Dlmalloc<Segments>,
    mark: Option<Mark>,
}

struct Mark {
    allocator: MaybeUninit<Dlmalloc<Segments>>,
    /// Segments that were taken before the mark.
    segments: usize,
    copies: Vec<(*mut u8, Vec<u8>)>,
    /// The zeros that no copy has.
    zeros: Option<(*mut u8, usize)>,
}

impl Heap {
    pub fn new() -> Self {
        Self { allocator: Dlmalloc::new_with_allocator(Segments::default()), mark: None }
    }

    pub fn allocate(&mut self, bytes: usize) -> *mut u8 {
        // SAFETY: any size may be asked for.
        unsafe { self.allocator.c_malloc(bytes) }
    }

    pub fn allocate_zeroed(&mut self, count: usize, bytes: usize) -> *mut u8 {
        let Some(bytes) = count.checked_mul(bytes) else { return ptr::null_mut() };
        // SAFETY: as above.
        unsafe { self.allocator.calloc(bytes, align_of::<usize>()) }
    }

    /// # Safety
    /// The allocation is of this heap, or null.
    pub unsafe fn free(&mut self, allocation: *mut u8) {
        if !allocation.is_null() {
            // SAFETY: promised.
            unsafe { self.allocator.c_free(allocation) };
        }
    }

    /// # Safety
    /// The allocation is of this heap, or null.
    pub unsafe fn resize(&mut self, allocation: *mut u8, bytes: usize) -> *mut u8 {
        if allocation.is_null() {
            return self.allocate(bytes);
        }
        // SAFETY: promised.
        unsafe { self.allocator.c_realloc(allocation, bytes) }
    }

    /// Marks the state to which `put_back` returns.
    pub fn mark(&mut self) {
        let taken = &self.allocator.allocator().book().taken;
        let (mut copies, mut zeros) = (Vec::new(), None);
        for (place, segment) in taken.iter().enumerate() {
            // SAFETY: the segment is memory of this heap, and initialised: zero when it came.
            let bytes = unsafe { std::slice::from_raw_parts(segment.start, segment.bytes) };
            let (body, tail) = bytes.split_at(bytes.len() - TAIL_BYTES);
            // In the last segment lies the allocator's rest, with a head that is not zero, up to the tail: zeros behind
            // it are no allocation. In all others they may be one.
            let used = match body.iter().rposition(|&byte| byte != 0) {
                Some(last) if place + 1 == taken.len() && body.len() - last >= ZEROS_MIN => last + 1,
                _ => body.len(),
            };
            copies.push((segment.start, body[..used].to_vec()));
            if used < body.len() {
                // SAFETY: within the segment.
                zeros = Some((unsafe { segment.start.add(used) }, body.len() - used));
            }
            // SAFETY: within the segment.
            copies.push((unsafe { segment.start.add(body.len()) }, tail.to_vec()));
        }
        let mut allocator = MaybeUninit::uninit();
        // SAFETY: a copy of the state's bytes, which is only ever copied back.
        unsafe { ptr::copy_nonoverlapping(&raw const self.allocator, allocator.as_mut_ptr(), 1) };
        self.mark = Some(Mark { allocator, segments: taken.len(), copies, zeros });
    }

    /// True if more was asked for than there is, since it was put back last.
    pub fn is_exhausted(&self) -> bool {
        self.allocator.allocator().book().is_exhausted
    }

    /// Bytes of its segments.
    pub fn bytes(&self) -> usize {
        self.allocator.allocator().book().taken.iter().map(|segment| segment.bytes).sum()
    }

    /// Puts everything back to the mark.
    ///
    /// # Safety
    /// Nobody uses an allocation that was made since, nor one that was freed since as if it were freed.
    pub unsafe fn put_back(&mut self) {
        let Some(mark) = &self.mark else { return };
        for (start, copy) in &mark.copies {
            // SAFETY: the place from which the copy was taken; segments are never given back.
            unsafe { ptr::copy_nonoverlapping(copy.as_ptr(), *start, copy.len()) };
        }
        if let Some((start, bytes)) = mark.zeros {
            // SAFETY: as above.
            unsafe { ptr::write_bytes(start, 0, bytes) };
        }
        // SAFETY: the bytes are those of this very state at the mark. What it points to was put back above; the
        // book is no part of it.
        unsafe { ptr::copy_nonoverlapping(mark.allocator.as_ptr(), &raw mut self.allocator, 1) };
        let segments = mark.segments;
        self.allocator.allocator().spare_all_but(segments);
    }
}

/// The bytes of an allocation: as many as were asked for, or some more.
///
/// # Safety
/// It is one of a heap, and not null.
pub unsafe fn size_of_allocation(allocation: *const u8) -> usize {
    // SAFETY: promised.
    let head = unsafe { allocation.cast::<usize>().sub(1).read() };
    (head & !FLAG_BITS) - size_of::<usize>()
}

#[derive(Clone, Copy)]
struct Segment {
    start: *mut u8,
    bytes: usize,
}

#[derive(Default)]
struct Book {
    /// Segments that the allocator has, in the order in which it took them.
    taken: Vec<Segment>,
    /// Segments that it had since the mark, by address, those side by side joined.
    spare: Vec<Segment>,
    bytes: usize,
    /// More was asked for than there is.
    is_exhausted: bool,
    source: PageSource,
}

/// The source of an allocator's memory. The book lies outside of the allocator's state: putting that back does not
/// touch it.
#[derive(Default)]
struct Segments(Box<UnsafeCell<Book>>);

// SAFETY: a heap is used by one thread.
unsafe impl Send for Segments {}

impl Segments {
    #[allow(clippy::mut_from_ref)]
    fn book(&self) -> &mut Book {
        // SAFETY: no reference is kept over a call, and one thread calls.
        unsafe { &mut *self.0.get() }
    }

    fn spare_all_but(&self, segments: usize) {
        let book = self.book();
        book.is_exhausted = false;
        if book.taken.len() == segments {
            return;
        }
        book.spare.extend(book.taken.drain(segments..));
        book.spare.sort_by_key(|segment| segment.start);
        book.spare.dedup_by(|after, before| {
            let joins = before.start as usize + before.bytes == after.start as usize;
            if joins {
                before.bytes += after.bytes;
            }
            joins
        });
    }
}

// SAFETY: segments lie in memory that nobody else has, and are never given back.
unsafe impl Allocator for Segments {
    fn alloc(&self, bytes: usize) -> (*mut u8, usize, u32) {
        let book = self.book();
        let none = (ptr::null_mut(), 0, 0);
        let Some(bytes) = bytes.checked_next_multiple_of(PAGE_BYTES) else { return none };
        let segment = match book.spare.iter().position(|spare| spare.bytes >= bytes) {
            Some(place) => {
                let start = book.spare[place].start;
                // As memory that comes for the first time: no message depends on what another had there.
                // SAFETY: within the spare segment, which nobody uses.
                unsafe { ptr::write_bytes(start, 0, bytes) };
                // SAFETY: within the spare segment, or its end.
                book.spare[place].start = unsafe { start.add(bytes) };
                book.spare[place].bytes -= bytes;
                book.spare.retain(|spare| spare.bytes > 0);
                Segment { start, bytes }
            }
            None if bytes > HEAP_BYTES_MAX - book.bytes => {
                book.is_exhausted = true;
                return none;
            }
            None => match book.source.take(bytes) {
                Some(start) => {
                    book.bytes += bytes;
                    Segment { start, bytes }
                }
                None => return none,
            },
        };
        book.taken.push(segment);
        (segment.start, segment.bytes, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        false
    }

    fn page_size(&self) -> usize {
        PAGE_BYTES
    }
}

/// Pages of the linear memory.
#[cfg(target_arch = "wasm32")]
#[derive(Default)]
struct PageSource;

#[cfg(target_arch = "wasm32")]
impl PageSource {
    fn take(&mut self, bytes: usize) -> Option<*mut u8> {
        let page = core::arch::wasm32::memory_grow(0, bytes / PAGE_BYTES);
        (page != usize::MAX).then(|| (page * PAGE_BYTES) as *mut u8)
    }
}

/// Natively, parts of one allocation that ends with the heap.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Default)]
struct PageSource {
    start: Option<*mut u8>,
    taken: usize,
}

#[cfg(not(target_arch = "wasm32"))]
const NATIVE_LAYOUT: std::alloc::Layout =
    match std::alloc::Layout::from_size_align(HEAP_BYTES_MAX, PAGE_BYTES) {
        Ok(layout) => layout,
        Err(_) => panic!("a heap has a size"),
    };

#[cfg(not(target_arch = "wasm32"))]
impl PageSource {
    fn take(&mut self, bytes: usize) -> Option<*mut u8> {
        // SAFETY: the layout has a size.
        let start = *self.start.get_or_insert_with(|| unsafe { std::alloc::alloc_zeroed(NATIVE_LAYOUT) });
        if start.is_null() || bytes > HEAP_BYTES_MAX - self.taken {
            return None;
        }
        // SAFETY: within the allocation.
        let page = unsafe { start.add(self.taken) };
        self.taken += bytes;
        Some(page)
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Drop for PageSource {
    fn drop(&mut self) {
        if let Some(start) = self.start.filter(|start| !start.is_null()) {
            // SAFETY: of this layout, and the heap has ended.
            unsafe { std::alloc::dealloc(start, NATIVE_LAYOUT) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random numbers for a test, the same in each run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, most: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as usize % most
        }
    }

    const ALIGNMENT: usize = 2 * size_of::<usize>();

    fn fill(allocation: *mut u8, bytes: usize, with: u8) {
        unsafe { ptr::write_bytes(allocation, with, bytes) };
    }

    fn is_filled(allocation: *mut u8, bytes: usize, with: u8) -> bool {
        unsafe { std::slice::from_raw_parts(allocation, bytes) }.iter().all(|&byte| byte == with)
    }

    #[test]
    fn whatever_happens_after_the_mark_is_undone() {
        let (mut heap, mut numbers) = (Heap::new(), Numbers(1));
        let mut kept = Vec::new();
        for number in 0..500 {
            let bytes = 1 + numbers.below(3_000);
            let allocation = heap.allocate(bytes);
            assert!(!allocation.is_null() && (allocation as usize).is_multiple_of(ALIGNMENT));
            let usable = unsafe { size_of_allocation(allocation) };
            assert!((bytes..bytes + 2 * ALIGNMENT).contains(&usable), "{usable} of {bytes}");
            fill(allocation, bytes, number as u8);
            if number % 3 == 0 {
                unsafe { heap.free(allocation) };
            } else {
                kept.push((allocation, bytes, number as u8));
            }
        }
        heap.mark();
        let mut firsts = Vec::new();
        for round in 0..50 {
            let mut own = Vec::new();
            for step in 0..300 {
                match numbers.below(4) {
                    0 => {
                        // One that was made before the mark goes.
                        let (allocation, ..) = kept[numbers.below(kept.len())];
                        fill(allocation, unsafe { size_of_allocation(allocation) }, 0xee);
                    }
                    1 if !own.is_empty() => {
                        let place = numbers.below(own.len());
                        unsafe { heap.free(own.swap_remove(place)) };
                    }
                    2 if !own.is_empty() => {
                        let place = numbers.below(own.len());
                        let resized = unsafe { heap.resize(own[place], 1 + numbers.below(20_000)) };
                        assert!(!resized.is_null());
                        own[place] = resized;
                    }
                    _ => {
                        let bytes = 1 + numbers.below(if step % 50 == 0 { 100_000 } else { 2_000 });
                        let allocation = heap.allocate(bytes);
                        assert!(!allocation.is_null());
                        fill(allocation, bytes, 0xdd);
                        own.push(allocation);
                    }
                }
            }
            let place = round % kept.len();
            unsafe { heap.free(kept[place].0) };
            unsafe { heap.put_back() };
            assert!(
                kept.iter().all(|(allocation, bytes, with)| is_filled(*allocation, *bytes, *with)),
                "round {round}"
            );
            firsts.push(heap.allocate(100));
            unsafe { heap.put_back() };
        }
        assert!(firsts.iter().all(|first| *first == firsts[0]), "each message begins alike");
    }

    #[test]
    fn an_allocation_of_zeros_is_zero_again_wherever_it_lies() {
        for bytes in (1_000..60_000).step_by(1_111) {
            let mut heap = Heap::new();
            let blocks: Vec<_> = (0..600_000 / bytes).map(|_| heap.allocate_zeroed(bytes, 1)).collect();
            heap.mark();
            for &block in &blocks {
                fill(block, bytes, 0xff);
            }
            unsafe { heap.put_back() };
            assert!(blocks.iter().all(|&block| is_filled(block, bytes, 0)), "{bytes}");
        }
    }

    #[test]
    fn what_is_asked_for_beyond_the_ceiling_is_not_had_and_all_of_it_is_had_again() {
        let mut heap = Heap::new();
        let first = heap.allocate(10);
        fill(first, 10, 7);
        heap.mark();
        for _ in 0..3 {
            assert!(heap.allocate(usize::MAX).is_null() && heap.allocate_zeroed(usize::MAX, 2).is_null());
            assert!(heap.allocate(HEAP_BYTES_MAX).is_null());
            let mut count = 0;
            while !heap.allocate(10_000).is_null() {
                count += 1;
            }
            assert!(count > HEAP_BYTES_MAX / 10_000 * 9 / 10, "{count}");
            unsafe { heap.put_back() };
            // All that the small ones had is there for a large one.
            let large = heap.allocate_zeroed(HEAP_BYTES_MAX / 2, 1);
            assert!(!large.is_null() && is_filled(large, HEAP_BYTES_MAX / 2, 0));
            unsafe { heap.put_back() };
            assert!(is_filled(first, 10, 7));
        }
    }
}
