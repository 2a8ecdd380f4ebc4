# One function, or part of one, for each kind of rule. The label in front of an
# instruction is where a test asks.
        .text
        .macro function name
        .p2align 4
        .globl \name
        .type \name, @function
\name:
        .cfi_startproc
        .endm
        .macro end
        .cfi_endproc
        .endm
        .macro label name
        .globl \name
\name:
        .endm

        function pushes
        push %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset %rbp, -16
        label pushed
        sub $0x83da0, %rsp
        .cfi_def_cfa_offset 540080
        label very_large
        add $0x83da0, %rsp
        .cfi_def_cfa_offset 16
        sub $0x200000, %rsp
        .cfi_def_cfa_offset 2097168
        label too_large
        ret
        end

        function frame_pointer
        push %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset %rbp, -16
        mov %rsp, %rbp
        .cfi_def_cfa_register %rbp
        label has_frame_pointer
        ret
        end

        # As gcc realigns: %r10 holds the CFA, then a slot of the frame does.
        function realigns
        lea 8(%rsp), %r10
        .cfi_def_cfa %r10, 0
        label in_r10
        and $-32, %rsp
        push -8(%r10)
        push %rbp
        mov %rsp, %rbp
        .cfi_escape 0x10, 6, 2, 0x76, 0
        push %r10
        .cfi_escape 0x0f, 3, 0x76, 0x78, 0x06
        label in_slot
        ret
        end

        # As OpenSSL keeps the stack pointer: *(rsp + 152) + 8.
        function keeps_in_slot
        .cfi_escape 0x0f, 6, 0x77, 0x98, 0x01, 0x06, 0x23, 8
        .cfi_offset %rbp, -24
        label openssl
        ret
        end

        function probes
        lea -0x20000(%rsp), %r11
        .cfi_def_cfa %r11, 131080
        label probing
        ret
        end

        function like_vfork
        pop %rdi
        .cfi_def_cfa_offset 0
        .cfi_register %rip, %rdi
        label in_rdi
        ret
        end

        function outermost
        .cfi_undefined %rip
        label has_no_caller
        ret
        end

        function switches
        .cfi_register %rsp, %r8
        label switching
        ret
        end

        function odd
        .cfi_def_cfa_offset 12
        label not_in_words
        ret
        end

        # DW_OP_breg7 8; DW_OP_breg9 0; lit8; mul; plus; deref; plus_uconst 8
        function computes
        .cfi_escape 0x0f, 10, 0x77, 8, 0x79, 0, 0x38, 0x1e, 0x22, 0x06, 0x23, 8
        label computed
        ret
        end

        function elsewhere
        .cfi_register %rbp, %rax
        label rbp_elsewhere
        ret
        end

        # What follows has no rows.
        .p2align 4
        label stub
        jmp *(%rax)
        .p2align 4
        .globl undescribed
undescribed:
        nop
        push %rbp
        label undescribed_pushed
        mov %rsp, %rbp
        label undescribed_body
        call *%rax
        pop %rbp
        label undescribed_return
        ret
        label undescribed_cold
        call *%rax
        ret
        .p2align 4
        .type other, @function
other:
        label other_body
        call *%rax
        ret
        .p2align 4
        label trampoline
        mov $15, %rax
        syscall
        .p2align 4
        function last
        ret
        end
