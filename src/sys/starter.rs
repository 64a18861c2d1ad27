//! The code of a tiny program that waits until it is told which other program it is to be.
//!
//! It is for kernels that are not this one, where no process of ours can become a program: it stands alone, calls no
//! library, and has no memory but what is named here. `launch` makes a file of it, and says what it reads.

use std::arch::global_asm;

/// Where it has its memory, at the same place in each process.
pub const MEMORY: u64 = 0x1000_0000;
/// Where its code is, the whole file.
pub const CODE: u64 = 0x0040_0000;

// It writes one line feed to 1, and reads from 0 to MEMORY: a u64 that is the length of all, itself included, then as much.
// At MEMORY + 8 are the addresses of argv, of envp and of the list of paths; at 32 are 16 bytes, and then room for 8. Each path
// is tried as execvp(3) does. If none can be executed, the 16 bytes and the negative errno are written to 2.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .rodata.fumehood_starter,\"a\",@progbits",
    ".globl fumehood_starter_begin",
    ".globl fumehood_starter_end",
    ".hidden fumehood_starter_begin",
    ".hidden fumehood_starter_end",
    "fumehood_starter_begin:",
    "mov eax, 1",
    "mov edi, 1",
    "lea rsi, [rip + 90f]",
    "mov edx, 1",
    "syscall",
    "mov ebx, {memory}",
    "xor r12d, r12d",
    "mov r13d, 8",
    "20:",
    "xor eax, eax",
    "xor edi, edi",
    "lea rsi, [rbx + r12]",
    "mov rdx, r13",
    "sub rdx, r12",
    "syscall",
    "cmp rax, -4",
    "je 20b",
    "test rax, rax",
    "jle 80f",
    "add r12, rax",
    "cmp r12, r13",
    "jb 20b",
    "mov r13, [rbx]",
    "cmp r12, r13",
    "jb 20b",
    "mov r14, [rbx + 24]",
    "mov r15, -2",
    "30:",
    "mov rdi, [r14]",
    "test rdi, rdi",
    "jz 70f",
    "mov rsi, [rbx + 8]",
    "mov rdx, [rbx + 16]",
    "mov eax, 59",
    "syscall",
    "add r14, 8",
    "cmp rax, -2",
    "je 30b",
    "cmp rax, -20",
    "je 30b",
    "mov r15, rax",
    "cmp rax, -13",
    "je 30b",
    "70:",
    "mov [rbx + 48], r15",
    "mov eax, 1",
    "mov edi, 2",
    "lea rsi, [rbx + 32]",
    "mov edx, 24",
    "syscall",
    "80:",
    "mov eax, 231",
    "mov edi, 127",
    "syscall",
    "ud2",
    "90:",
    ".byte 10",
    "fumehood_starter_end:",
    ".popsection",
    memory = const MEMORY,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .rodata.fumehood_starter,\"a\",@progbits",
    ".balign 4",
    ".globl fumehood_starter_begin",
    ".globl fumehood_starter_end",
    ".hidden fumehood_starter_begin",
    ".hidden fumehood_starter_end",
    "fumehood_starter_begin:",
    "mov x8, #64",
    "mov x0, #1",
    "adr x1, 90f",
    "mov x2, #1",
    "svc #0",
    "movz x19, #({memory} >> 16), lsl #16",
    "mov x20, #0",
    "mov x21, #8",
    "20:",
    "mov x8, #63",
    "mov x0, #0",
    "add x1, x19, x20",
    "sub x2, x21, x20",
    "svc #0",
    "cmn x0, #4",
    "b.eq 20b",
    "cmp x0, #0",
    "b.le 80f",
    "add x20, x20, x0",
    "cmp x20, x21",
    "b.lo 20b",
    "ldr x21, [x19]",
    "cmp x20, x21",
    "b.lo 20b",
    "ldr x22, [x19, #24]",
    "mov x23, #-2",
    "30:",
    "ldr x0, [x22], #8",
    "cbz x0, 70f",
    "ldr x1, [x19, #8]",
    "ldr x2, [x19, #16]",
    "mov x8, #221",
    "svc #0",
    "cmn x0, #2",
    "b.eq 30b",
    "cmn x0, #20",
    "b.eq 30b",
    "mov x23, x0",
    "cmn x0, #13",
    "b.eq 30b",
    "70:",
    "str x23, [x19, #48]",
    "mov x8, #64",
    "mov x0, #2",
    "add x1, x19, #32",
    "mov x2, #24",
    "svc #0",
    "80:",
    "mov x8, #94",
    "mov x0, #127",
    "svc #0",
    "brk #1",
    "90:",
    ".byte 10",
    "fumehood_starter_end:",
    ".popsection",
    memory = const MEMORY,
);

unsafe extern "C" {
    static fumehood_starter_begin: u8;
    static fumehood_starter_end: u8;
}

/// The code, which runs from its first byte on, wherever it is.
#[must_use]
pub fn code() -> &'static [u8] {
    let (begin, end) = (&raw const fumehood_starter_begin, &raw const fumehood_starter_end);
    // SAFETY: both are in one section that is above, and what is between them is constant.
    unsafe { std::slice::from_raw_parts(begin, end.offset_from_unsigned(begin)) }
}
