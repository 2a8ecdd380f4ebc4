//! Machine code, a few instructions each, and the rules that come of it.

use sampler_common::unwind::x86_64::{Base, Rule, Saved};

use super::{Gap, runs};

/// Where the code lies: aligned as functions are.
const ADDRESS: u64 = 0x1000;

/// Bytes from one place up to another, and their rule.
type Found = (u32, u32, Rule);

/// What is found in code in which symbols name the functions at `starts`.
fn found(code: &[u8], starts: &[u64]) -> Vec<Found> {
    let starts: Vec<u64> = starts.iter().map(|start| ADDRESS + start).collect();
    rules(&Gap {
        code,
        address: ADDRESS,
        starts: &starts,
        entry: None,
    })
}

/// What is found, with neighbours joined that have the same rule.
fn rules(gap: &Gap<'_>) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for run in runs(gap) {
        let rule = Rule::unpack(run.rule);
        match found.last_mut() {
            Some((_, to, before)) if *to == run.from && *before == rule => *to = run.to,
            _ => found.push((run.from, run.to, rule)),
        }
    }
    found
}

/// Functions one behind the other, each aligned by `nop`s in front of it.
fn aligned(functions: &[&[&[u8]]]) -> Vec<u8> {
    let mut code = Vec::new();
    for function in functions {
        code.resize(code.len().next_multiple_of(16), 0x90);
        code.extend(function.concat());
    }
    code
}

/// So many words on the stack up to the caller's, `rbp` as the caller had it.
const fn words(cfa_words: u32) -> Rule {
    saving(cfa_words, Saved::Unchanged)
}

const fn saving(cfa_words: u32, saved: Saved) -> Rule {
    Rule::Offset {
        base: Base::StackPointer,
        cfa_words,
        saved,
    }
}

/// The caller's `rbp` is below the return address.
const PUSHED: Saved = Saved::BelowCfa(2);

const FRAME: Rule = Rule::Offset {
    base: Base::FramePointer,
    cfa_words: 2,
    saved: PUSHED,
};

const RETURNS: &[&[u8]] = &[
    &[0xc3], // ret
];

#[test]
fn room_on_the_stack_is_counted_up_and_down() {
    let code = [
        &[0x53][..],               //  0  push %rbx
        &[0x48, 0x83, 0xec, 0x20], //  1  sub $0x20, %rsp
        &[0xff, 0xd0],             //  5  call *%rax
        &[0x48, 0x83, 0xc4, 0x20], //  7  add $0x20, %rsp
        &[0x5b],                   //  b  pop %rbx
        &[0xc3],                   //  c  ret
    ]
    .concat();
    let expected = [
        (0x0, 0x1, words(1)),
        (0x1, 0x5, words(2)),
        (0x5, 0xb, words(6)),
        (0xb, 0xc, words(2)),
        (0xc, 0xd, words(1)),
    ];
    assert_eq!(found(&code, &[0]), expected);
}

#[test]
fn a_frame_pointer_counts_from_where_it_is_set_to_where_leave_restores_it() {
    let code = [
        &[0x55][..],               //  0  push %rbp
        &[0x48, 0x89, 0xe5],       //  1  mov %rsp, %rbp
        &[0x48, 0x83, 0xec, 0x10], //  4  sub $0x10, %rsp
        &[0xff, 0xd0],             //  8  call *%rax
        &[0xc9],                   //  a  leave
        &[0xc3],                   //  b  ret
    ]
    .concat();
    let expected = [
        (0x0, 0x1, words(1)),
        (0x1, 0x4, saving(2, PUSHED)),
        (0x4, 0xb, FRAME),
        (0xb, 0xc, words(1)),
    ];
    assert_eq!(found(&code, &[0]), expected);
}

#[test]
fn rbp_that_holds_data_is_found_where_it_was_pushed() {
    let code = [
        &[0x55][..],               //  0  push %rbp
        &[0x89, 0xfd],             //  1  mov %edi, %ebp
        &[0x53],                   //  3  push %rbx
        &[0x48, 0x83, 0xec, 0x08], //  4  sub $0x8, %rsp
        &[0xff, 0xd0],             //  8  call *%rax
        &[0x48, 0x83, 0xc4, 0x08], //  a  add $0x8, %rsp
        &[0x5b],                   //  e  pop %rbx
        &[0x5d],                   //  f  pop %rbp
        &[0xc3],                   // 10  ret
    ]
    .concat();
    let expected = [
        (0x0, 0x1, words(1)),
        (0x1, 0x4, saving(2, PUSHED)),
        (0x4, 0x8, saving(3, PUSHED)),
        (0x8, 0xe, saving(4, PUSHED)),
        (0xe, 0xf, saving(3, PUSHED)),
        (0xf, 0x10, saving(2, PUSHED)),
        (0x10, 0x11, words(1)),
    ];
    assert_eq!(found(&code, &[0]), expected);
}

#[test]
fn behind_a_return_in_the_middle_the_stack_is_as_at_the_branch() {
    let code = [
        &[0x53][..],   //  0  push %rbx
        &[0x85, 0xff], //  1  test %edi, %edi
        &[0x74, 0x02], //  3  je 7
        &[0x5b],       //  5  pop %rbx
        &[0xc3],       //  6  ret
        &[0xff, 0xd0], //  7  call *%rax
        &[0x5b],       //  9  pop %rbx
        &[0xc3],       //  a  ret
    ]
    .concat();
    let expected = [
        (0x0, 0x1, words(1)),
        (0x1, 0x6, words(2)),
        (0x6, 0x7, words(1)),
        (0x7, 0xa, words(2)),
        (0xa, 0xb, words(1)),
    ];
    assert_eq!(found(&code, &[0]), expected);
}

/// Like musl's, which calls `main` and passes what that returns to `exit`.
const NEVER_RETURNS: &[&[u8]] = &[
    &[0x53],             //  0  push %rbx
    &[0x48, 0x89, 0xfb], //  1  mov %rdi, %rbx
    &[0xff, 0xd6],       //  4  call *%rsi
    &[0xff, 0xd3],       //  6  call *%rbx
    &[0x89, 0xc7],       //  8  mov %eax, %edi
    &[0xff, 0xd2],       //  a  call *%rdx
];

#[test]
fn a_function_that_never_returns_has_rules_up_to_its_last_call() {
    let code = aligned(&[NEVER_RETURNS, RETURNS]);
    let expected = [
        (0x0, 0x1, words(1)),
        // A return address behind the last call is looked up at the byte before.
        (0x1, 0xc, words(2)),
        (0x10, 0x11, words(1)),
    ];
    assert_eq!(found(&code, &[0, 0x10]), expected);
}

#[test]
fn where_functions_are_not_aligned_what_is_behind_a_call_may_be_anothers() {
    let before: &[&[u8]] = &[
        &[0x48, 0xc7, 0xc0, 0x00, 0x00, 0x00, 0x00], //  0  mov $0, %rax
        &[0x48, 0xc7, 0xc0, 0x00, 0x00, 0x00, 0x00], //  7  mov $0, %rax
        &[0xf3, 0xc3],                               //  e  repz ret
    ];
    // At an aligned address only because what is before it is so long.
    let code = aligned(&[before, NEVER_RETURNS]);
    let expected = [(0x0, 0x11, words(1)), (0x11, 0x16, words(2))];
    assert_eq!(found(&code, &[0, 0x10]), expected);
}

/// Up to a call that may not return.
const CALLS: &[&[u8]] = &[
    &[0x53],       //  0  push %rbx
    &[0xff, 0xd0], //  1  call *%rax
];

/// What holds of [`CALLS`] whatever is behind it.
const CALLING: [Found; 2] = [(0x0, 0x1, words(1)), (0x1, 0x3, words(2))];

#[test]
fn another_function_behind_a_call_that_never_returns_is_not_taken_for_a_part() {
    let other = [
        &[0x48, 0x83, 0xec, 0x08][..], //  3  sub $0x8, %rsp
        &[0xff, 0xd1],                 //  7  call *%rcx
    ];
    let code = [CALLS.concat(), other.concat()].concat();
    assert_eq!(found(&code, &[0]), CALLING);
}

#[test]
fn a_part_of_another_function_behind_such_a_call_has_that_functions_stack() {
    let part: &[&[u8]] = &[
        &[0xff, 0xd1], //  3  call *%rcx
    ];
    let other: &[&[u8]] = &[
        &[0x48, 0x83, 0xec, 0x18],             // 10  sub $0x18, %rsp
        &[0x85, 0xff],                         // 14  test %edi, %edi
        &[0x0f, 0x85, 0xe7, 0xff, 0xff, 0xff], // 16  jne 3
        &[0x48, 0x83, 0xc4, 0x18],             // 1c  add $0x18, %rsp
        &[0xc3],                               // 20  ret
    ];
    let code = aligned(&[&[CALLS, part].concat(), other]);
    let expected = [
        CALLING[0],
        CALLING[1],
        (0x3, 0x5, words(4)),
        (0x10, 0x14, words(1)),
        (0x14, 0x20, words(4)),
        (0x20, 0x21, words(1)),
    ];
    assert_eq!(found(&code, &[0, 0x10]), expected);
}

#[test]
fn where_a_jump_leads_nobody_knows_where_what_is_behind_a_call_has_no_rule() {
    let code = [
        &[0x85, 0xff][..], //  0  test %edi, %edi
        &[0x74, 0x02],     //  2  je 6
        &[0xff, 0xe0],     //  4  jmp *%rax
        &[0x53],           //  6  push %rbx
        &[0xff, 0xd1],     //  7  call *%rcx
        &[0xff, 0xd2],     //  9  call *%rdx
    ]
    .concat();
    let expected = [(0x0, 0x7, words(1)), (0x7, 0x9, words(2))];
    assert_eq!(found(&code, &[0]), expected);
}

#[test]
fn a_function_with_a_jump_table_is_not_believed() {
    let code = [
        &[0x53][..],               //  0  push %rbx
        &[0x48, 0x63, 0x04, 0xba], //  1  movslq (%rdx,%rdi,4), %rax
        &[0x48, 0x01, 0xd0],       //  5  add %rdx, %rax
        &[0xff, 0xe0],             //  8  jmp *%rax
        &[0x5b],                   //  a  pop %rbx
        &[0xc3],                   //  b  ret
    ]
    .concat();
    assert_eq!(found(&code, &[0]), []);
}

#[test]
fn a_jump_through_a_register_is_a_call_if_the_stack_is_the_callers() {
    let code = [
        &[0x53][..],   //  0  push %rbx
        &[0x89, 0xfb], //  1  mov %edi, %ebx
        &[0x5b],       //  3  pop %rbx
        &[0xff, 0xe1], //  4  jmp *%rcx
    ]
    .concat();
    let expected = [
        (0x0, 0x1, words(1)),
        (0x1, 0x4, words(2)),
        (0x4, 0x6, words(1)),
    ];
    assert_eq!(found(&code, &[0]), expected);
}

#[test]
fn functions_are_found_by_symbols_calls_addresses_and_alignment() {
    let code = [
        &[0x48, 0x83, 0xec, 0x08][..],               //  0  sub $0x8, %rsp
        &[0xe8, 0x0e, 0x00, 0x00, 0x00],             //  4  call 17
        &[0x48, 0x8d, 0x3d, 0x10, 0x00, 0x00, 0x00], //  9  lea 20, %rdi
        &[0xff, 0xd0],                               // 10  call *%rax
        &[0x48, 0x83, 0xc4, 0x08],                   // 12  add $0x8, %rsp
        &[0xc3],                                     // 16  ret
        &[0x89, 0xf8],                               // 17  mov %edi, %eax
        &[0xc3],                                     // 19  ret
        &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],       // 1a  nopw 0(%rax,%rax)
        &[0x53],                                     // 20  push %rbx
        &[0x5b],                                     // 21  pop %rbx
        &[0xf4],                                     // 22  hlt
        &[0x0f, 0x1f, 0x40, 0x00],                   // 23  nopl 0(%rax)
        &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00], // 27  nopl 0(%rax), long
        &[0x66, 0x90],                               // 2e  xchg %ax, %ax
        &[0x50],                                     // 30  push %rax
        &[0x58],                                     // 31  pop %rax
        &[0xc3],                                     // 32  ret
    ]
    .concat();
    let expected = [
        (0x0, 0x4, words(1)),
        (0x4, 0x16, words(2)),
        // Its own return, and the function that it calls.
        (0x16, 0x1a, words(1)),
        // That whose address it takes; it proves nothing by itself.
        (0x20, 0x21, words(1)),
        (0x21, 0x22, words(2)),
        (0x22, 0x23, words(1)),
        // What follows padding and returns.
        (0x30, 0x31, words(1)),
        (0x31, 0x32, words(2)),
        (0x32, 0x33, words(1)),
    ];
    assert_eq!(found(&code, &[0]), expected);
}

#[test]
fn padding_that_never_runs_gets_no_rule() {
    let mut code = RETURNS.concat();
    code.resize(0x10, 0xcc); // int3
    code.extend(RETURNS.concat());
    let expected = [(0x0, 0x1, words(1)), (0x10, 0x11, words(1))];
    assert_eq!(found(&code, &[0, 0x10]), expected);
    // Without symbols too, and whatever the second one is.
    assert_eq!(found(&code, &[]), expected);
}

#[test]
fn data_among_code_gets_no_rule() {
    let as_code: &[&[u8]] = &[
        &[0x50], // 10  push %rax
        &[0x50], // 11  push %rax
        &[0xc3], // 12  ret, to what was pushed
    ];
    let text: &[&[u8]] = &[b"a text, which no processor runs"];
    for data in [as_code, text] {
        let code = aligned(&[RETURNS, data, RETURNS]);
        let behind = code.len() as u32 - 1;
        let expected = [(0x0, 0x1, words(1)), (behind, behind + 1, words(1))];
        assert_eq!(found(&code, &[0, behind.into()]), expected, "{data:x?}");
    }
}

#[test]
fn a_stack_that_was_made_by_hand_ends_in_front_of_the_function_it_returns_to() {
    let made: &[&[u8]] = &[
        &[0x48, 0x89, 0xdc], // 10  mov %rbx, %rsp
        &[0x5f],             // 13  pop %rdi
        &[0xff, 0xd0],       // 14  call *%rax
        &[0xf4],             // 16  hlt
    ];
    let code = aligned(&[RETURNS, made]);
    let expected = [(0x0, 0x1, words(1)), (0x1, 0x10, Rule::EndOfStack)];
    assert_eq!(found(&code, &[0, 0x10]), expected);
}

#[test]
fn nothing_called_the_code_where_the_program_starts() {
    let entry: &[&[u8]] = &[
        &[0x31, 0xed],                   //  0  xor %ebp, %ebp
        &[0x48, 0x89, 0xe7],             //  2  mov %rsp, %rdi
        &[0x48, 0x83, 0xe4, 0xf0],       //  5  and $-0x10, %rsp
        &[0xe8, 0x02, 0x00, 0x00, 0x00], //  9  call 10
        &[0xf4],                         //  e  hlt
    ];
    let code = aligned(&[entry, NEVER_RETURNS]);
    let expected = [
        (0x0, 0xf, Rule::EndOfStack),
        // What it calls is a function, though nothing else says so.
        (0x10, 0x11, words(1)),
        (0x11, 0x1c, words(2)),
    ];
    let gap = Gap {
        code: &code,
        address: ADDRESS,
        starts: &[],
        entry: Some((ADDRESS, 64)),
    };
    assert_eq!(rules(&gap), expected);
}
