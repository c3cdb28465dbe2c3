/* Preloaded, this shows a process a processor without VNNI and AVX-512, by the kernel's CPUID faulting (arch_prctl(2)):
 * CPUID then raises SIGSEGV, whose handler answers in its place with the bits of those instructions cleared. Everything
 * else runs as it is, so that ONNX Runtime takes its AVX2 kernels at full speed. See without_vnni.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define BIT(n) (1u << (n))

typedef int (*sigaction_t)(int, const struct sigaction *, struct sigaction *);

static void answer(int signal_number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *code = (const unsigned char *)registers[REG_RIP];
  uint32_t leaf = (uint32_t)registers[REG_RAX], sub = (uint32_t)registers[REG_RCX], a, b, c, d;
  (void)signal_number, (void)info;
  if (code[0] != 0x0f || code[1] != 0xa2) { /* not CPUID: the process is about to end, as it would without this */
    signal(SIGSEGV, SIG_DFL);
    return;
  }
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
  __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(sub));
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
  if (leaf == 7 && sub == 0) {
    b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31)); /* AVX512 F DQ IFMA .. VL */
    c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14)); /* AVX512 VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
    d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25)); /* more AVX512; AMX */
  } else if (leaf == 7 && sub == 1) {
    a &= ~(BIT(4) | BIT(5) | BIT(21)); /* AVX_VNNI, AVX512_BF16, AMX_FP16 */
    d &= ~(BIT(4) | BIT(10) | BIT(19)); /* AVX_VNNI_INT8, AVX_VNNI_INT16, AVX10 */
  }
  registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
  registers[REG_RIP] += 2;
}

static sigaction_t next_sigaction(void) { return (sigaction_t)dlsym(RTLD_NEXT, "sigaction"); }

static int hidden;

/* Python's faulthandler and others want SIGSEGV for themselves: it stays ours. */
int sigaction(int number, const struct sigaction *action, struct sigaction *old) {
  return next_sigaction()(number, hidden && number == SIGSEGV ? NULL : action, old);
}

__attribute__((constructor)) static void hide(void) {
  /* tritonserver has threads that block SIGSEGV, and multiplies nothing itself: its Python stubs do. */
  if (strcmp(program_invocation_short_name, "tritonserver") == 0) return;
  struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
  if (next_sigaction()(SIGSEGV, &action, NULL) || syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0)) {
    perror("CPUID cannot be hidden here");
    _exit(70); /* rather than to pass for another processor's result */
  }
  hidden = 1;
}
