;; `wasi_snapshot_preview1` for modules of ordinary toolchains: deterministic, with nothing behind it. `guest wrap` puts
;; it into the component, so that the component imports tidegate:ingest alone.
;;
;; - The wall clock begins on 1 January 2026 and moves by 1 us at each question. A sleep moves it and returns.
;; - Random numbers have a fixed seed. What is written is dropped. There are no arguments, variables, files or sockets.
;; - An exit traps.
;;
;; Errors: 8 is badf, 28 is inval, 52 is nosys. `adapter.wasm` beside this file is made of it; a test compares them.
(module
  (import "env" "memory" (memory 0))
  ;; Nanoseconds since the start.
  (global $time (mut i64) (i64.const 0))
  (global $random (mut i64) (i64.const 42))

  ;; The begin of a clock: the monotonic one (1) counts from 0.
  (func $begin (param $clock i32) (result i64)
    (select (i64.const 0) (i64.const 1767225600000000000) (local.get $clock)))

  (func $no_entries (param $count i32) (param $bytes i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $bytes) (i32.const 0))
    (i32.const 0))
  (func (export "args_get") (param i32 i32) (result i32) (i32.const 0))
  (func (export "args_sizes_get") (param i32 i32) (result i32)
    (call $no_entries (local.get 0) (local.get 1)))
  (func (export "environ_get") (param i32 i32) (result i32) (i32.const 0))
  (func (export "environ_sizes_get") (param i32 i32) (result i32)
    (call $no_entries (local.get 0) (local.get 1)))

  (func (export "clock_res_get") (param $clock i32) (param $answer i32) (result i32)
    (i64.store (local.get $answer) (i64.const 1000))
    (i32.const 0))
  (func (export "clock_time_get") (param $clock i32) (param $precision i64) (param $answer i32) (result i32)
    (global.set $time (i64.add (global.get $time) (i64.const 1000)))
    (i64.store (local.get $answer) (i64.add (global.get $time) (call $begin (local.get $clock))))
    (i32.const 0))

  (func (export "fd_advise") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_allocate") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_close") (param i32) (result i32) (i32.const 8))
  (func (export "fd_datasync") (param i32) (result i32) (i32.const 8))
  ;; The three streams are character devices that can be written to.
  (func (export "fd_fdstat_get") (param $fd i32) (param $answer i32) (result i32)
    (if (i32.gt_u (local.get $fd) (i32.const 2)) (then (return (i32.const 8))))
    (i64.store (local.get $answer) (i64.const 2))
    (i64.store offset=8 (local.get $answer) (i64.const 64))
    (i64.store offset=16 (local.get $answer) (i64.const 0))
    (i32.const 0))
  (func (export "fd_fdstat_set_flags") (param i32 i32) (result i32) (i32.const 0))
  (func (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_pread") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_dir_name") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_pwrite") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_read") (param i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_renumber") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_sync") (param i32) (result i32) (i32.const 8))
  (func (export "fd_tell") (param i32 i32) (result i32) (i32.const 8))
  ;; All is taken: the sum of the parts' lengths.
  (func (export "fd_write") (param $fd i32) (param $part i32) (param $parts i32) (param $answer i32) (result i32)
    (local $sum i32)
    (if (i32.gt_u (local.get $fd) (i32.const 2)) (then (return (i32.const 8))))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $parts)))
        (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $part))))
        (local.set $part (i32.add (local.get $part) (i32.const 8)))
        (local.set $parts (i32.sub (local.get $parts) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $answer) (local.get $sum))
    (i32.const 0))

  (func (export "path_create_directory") (param i32 i32 i32) (result i32) (i32.const 52))
  (func (export "path_filestat_get") (param i32 i32 i32 i32 i32) (result i32) (i32.const 52))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) (i32.const 52))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 52))
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) (i32.const 52))
  (func (export "path_readlink") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 52))
  (func (export "path_remove_directory") (param i32 i32 i32) (result i32) (i32.const 52))
  (func (export "path_rename") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 52))
  (func (export "path_symlink") (param i32 i32 i32 i32 i32) (result i32) (i32.const 52))
  (func (export "path_unlink_file") (param i32 i32 i32) (result i32) (i32.const 52))

  ;; The first subscription is ready at once. One of a clock (kind 0) moves the time to where the sleeper wished to wake.
  (func (export "poll_oneoff") (param $in i32) (param $out i32) (param $count i32) (param $answer i32) (result i32)
    (local $until i64)
    (if (i32.eqz (local.get $count)) (then (return (i32.const 28))))
    (if (i32.eqz (i32.load8_u offset=8 (local.get $in)))
      (then
        (if (i32.and (i32.load16_u offset=40 (local.get $in)) (i32.const 1))
          (then
            (local.set $until
              (i64.sub (i64.load offset=24 (local.get $in)) (call $begin (i32.load offset=16 (local.get $in)))))
            (if (i64.lt_s (global.get $time) (local.get $until))
              (then (global.set $time (local.get $until)))))
          (else (global.set $time (i64.add (global.get $time) (i64.load offset=24 (local.get $in))))))))
    (i64.store (local.get $out) (i64.load (local.get $in)))
    (i64.store offset=8 (local.get $out) (i64.const 0))
    (i32.store8 offset=10 (local.get $out) (i32.load8_u offset=8 (local.get $in)))
    (i64.store offset=16 (local.get $out) (i64.const 0))
    (i64.store offset=24 (local.get $out) (i64.const 0))
    (i32.store (local.get $answer) (i32.const 1))
    (i32.const 0))

  (func (export "proc_exit") (param i32) unreachable)
  (func (export "proc_raise") (param i32) (result i32) (i32.const 52))
  (func (export "sched_yield") (result i32) (i32.const 0))
  (func (export "random_get") (param $at i32) (param $count i32) (result i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (global.set $random (i64.add (global.get $random) (i64.const 0x9E3779B97F4A7C15)))
        (i32.store8 (local.get $at)
          (i32.wrap_i64
            (i64.shr_u
              (i64.mul
                (i64.xor (global.get $random) (i64.shr_u (global.get $random) (i64.const 30)))
                (i64.const 0xBF58476D1CE4E5B9))
              (i64.const 40))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.const 0))
  (func (export "sock_accept") (param i32 i32 i32) (result i32) (i32.const 52))
  (func (export "sock_recv") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 52))
  (func (export "sock_send") (param i32 i32 i32 i32 i32) (result i32) (i32.const 52))
  (func (export "sock_shutdown") (param i32 i32) (result i32) (i32.const 52)))
